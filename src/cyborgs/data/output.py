"""Pictures for the user: as bytes, and as files that appear whole under their names."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from cyborgs.data.palette import palette
from cyborgs.files import AppendFile, cleared, rename, try_remove
from cyborgs.machine.disk_errors import disk_error

UInt8 = NDArray[np.uint8]


def label_png_bytes(labels: UInt8) -> bytes:
    """A label map (H, W) as an 8-bit PNG whose palette is ``palette.palette()``."""
    picture = Image.fromarray(labels).convert("L")
    picture.putpalette(palette().tobytes())
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


def rgb_png_bytes(picture: UInt8) -> bytes:
    """A picture (H, W, 3) as PNG."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG")
    return out.getvalue()


def jpeg_bytes(picture: UInt8, quality: int = 90) -> bytes:
    """A picture (H, W, 3) as JPEG."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, colorsubsampling="420")
    return data


def put(path: Path, data: bytes) -> int:
    """Write a file that appears whole under its name, with the folders above it; its length.

    Not flushed to the disk, which would take longer than all else: whoever goes on after a power cut compares lengths.
    """
    aside = path.with_name(f".{threading.get_ident()}.tmp")  # short: the name itself may be as long as one may be
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path.parent, len(data)) from error
    with cleared(aside, path, len(data)):
        file = AppendFile(aside)
        try:
            file.write(data)
            file.drain()
        finally:
            file.close()
        rename(aside, path)
    return len(data)


def remove_leftovers(folder: Path) -> None:
    """What a process that was killed in ``put`` left below the folder; only while nobody else writes there."""
    for path in folder.rglob(".*.tmp"):
        if path.name[1:-4].isdigit():
            try_remove(path)
