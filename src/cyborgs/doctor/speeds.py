"""Short measurements: decoding, arithmetic, writing. Each takes a second or so."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

SAMPLE: Final = 24
"""Photos of the user's that are decoded."""
SECONDS: Final = 3.0
"""Longest time for looking for them, and for decoding them."""
WRITTEN: Final = 64 * 2**20
"""Bytes that are written to time a disk."""


def rate(work: Callable[[], object], seconds: float = 0.4) -> float:
    """How often a second; the first call is not counted."""
    work()
    count, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds or not count:
        work()
        count += 1
    return count / elapsed if elapsed else 0.0


def writing(folder: Path) -> int:
    """Bytes a second to a file in a folder, until they are on the disk; the file has no name and is gone after it."""
    import tempfile

    piece = os.urandom(4 * 2**20)
    written, begun = 0, time.perf_counter()
    with tempfile.TemporaryFile(dir=folder) as file:
        while written < WRITTEN and time.perf_counter() - begun < SECONDS:
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            written += len(piece)
    return round(written / (time.perf_counter() - begun))


def decoding(data: Path | None, file_system: Callable[[Path], str]) -> dict[str, Any]:
    """Pictures a second of a built-in JPEG, and of some of the photos in ``data``, one thread."""
    import cv2
    import numpy as np
    import simplejpeg

    from cyborgs.data.decode import UnreadableImage, decode
    from cyborgs.data.images import PhotoFiles
    from cyborgs.errors import printable

    coarse = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    picture = simplejpeg.encode_jpeg(np.ascontiguousarray(cv2.resize(coarse, (640, 480))), 90)
    found: dict[str, Any] = {"built-in 640x480 JPEGs decoded_per_second": round(rate(lambda: decode(picture, "")))}
    if data is None:
        return found
    if not data.exists():
        return found | {"data": str(data), "problem": "no such folder or file"}
    names = list(itertools.islice(_candidates(data), 2000))
    step = max(1, len(names) // SAMPLE)
    reading, taken, megapixels, failed = 0.0, 0.0, [], []
    read = 0
    begun = time.perf_counter()
    for path in names[::step][:SAMPLE]:
        if time.perf_counter() - begun > SECONDS:
            break
        start = time.perf_counter()
        try:
            content = PhotoFiles((path,)).content(0)
            middle = time.perf_counter()
            height, width, _ = decode(content, str(path)).shape
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, UnreadableImage) else str(error)
            failed.append(f"{printable(path.name)}: {reason}")
            continue
        reading, taken = reading + middle - start, taken + time.perf_counter() - middle
        read += len(content)
        megapixels.append(height * width / 1e6)
    found |= {"data": str(data), "file system": file_system(data), "photos tried": len(megapixels) + len(failed)}
    if megapixels:
        found["megapixels, median"] = round(float(np.median(megapixels)), 2)
        found["photos decoded_per_second"] = round(len(megapixels) / max(taken, 1e-9), 1)
        found["read_bytes_per_second"] = round(read / max(reading, 1e-9))
    else:
        found["problem"] = "no photo could be read" if names else "no photos there"
    return found | {"unreadable": failed}


def _candidates(data: Path) -> Iterator[Path]:
    """Photos of a folder or a list, as they come; a large folder on a slow disk is left after a while."""
    from cyborgs.data.listing import SUFFIXES

    begun = time.perf_counter()
    if data.is_file():
        for line in data.read_bytes().splitlines():
            if line.strip() and not line.startswith(b"#"):
                yield data.parent / os.fsdecode(line)
        return
    for folder, _, files in os.walk(data):
        for name in files:
            if time.perf_counter() - begun > SECONDS:
                return
            if Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name)


def arithmetic() -> dict[str, Any]:
    """Billions of operations a second on the device that a run would take, and in bf16 over fp32."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def product(dtype: torch.dtype, side: int) -> float:
        a = torch.ones(side, side, dtype=dtype, device=device)

        def work() -> None:
            torch.mm(a, a)
            finish()

        return rate(work) * 2 * side**3 / 1e9

    images = torch.ones(4, 64, 56, 56, device=device).to(memory_format=torch.channels_last)
    weight = torch.ones(64, 64, 3, 3, device=device).to(memory_format=torch.channels_last)

    def convolve() -> None:
        torch.nn.functional.conv2d(images, weight, padding=1)
        finish()

    small = 256  # bf16 in software takes minutes for large ones
    return {
        "device": device,
        "1024 x 1024 product, fp32, GFLOP/s": round(product(torch.float32, 1024), 1),
        "3 x 3 convolution, fp32, GFLOP/s": round(rate(convolve) * 2 * 4 * 64 * 64 * 9 * 56 * 56 / 1e9, 1),
        "bf16 over fp32": round(product(torch.bfloat16, small) / product(torch.float32, small), 2),
    }
