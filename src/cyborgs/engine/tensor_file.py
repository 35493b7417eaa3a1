"""Tensors to a safetensors file, one at a time.

The library's ``save`` costs twice the size of all tensors in memory (572 MB more for 300 MB, safetensors 0.8.0), and
its ``save_file`` opens the file itself, out of reach of ``cyborgs/files.py``. The format is a header and the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import torch
import xxhash
from torch import Tensor

from cyborgs.files import AppendFile

_NAMES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(file: AppendFile, tensors: Mapping[str, Tensor]) -> str:
    """Append all tensors, of any device and layout, in the safetensors format; xxh64 of what was written.

    One tensor at a time is copied, where it is on another device or not contiguous.

    Raises:
        TypeError: a dtype that is not for checkpoints; names the tensor.
        DiskError: the disk does not take it.
    """
    header: dict[str, object] = {}
    # The widest first, as the library does: then each begins at a multiple of its element's size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    offset = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise TypeError(f"{name}: tensors of {tensor.dtype} are not saved")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = xxhash.xxh64()

    def write(data: bytes | memoryview) -> None:
        digest.update(data)
        file.write(data)

    write(len(text).to_bytes(8, "little") + text)
    for name in order:
        if tensors[name].numel():
            flat = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            write(flat.numpy().data)
    return digest.hexdigest()
