"""Masks as predictions for Label Studio: tasks to import, and the labelling interface that they need."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.palette import palette
from cyborgs.files import write_bytes
from cyborgs.segmenting.json_file import write_list
from cyborgs.structures import PhotoMask

SIZES: Final = (3, 4, 8, 16)
"""Bits of a run's length, of which each run names one."""
_WORD: Final = 8
"""Bits of a value."""
_WIDEST: Final = 1 + 2 + 16 + _WORD


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """A mask (H, W) as Label Studio's brush: bytes of the run lengths of an RGBA picture that is 255 inside.

    A stream of bits, highest first: 32 of the number of values, 5 of the bits a value less 1, four times 4 of ``SIZES``
    less 1; then the runs: 1, 2 bits that name the size, the length less 1, the value. Zeros fill the last byte.
    """
    values = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    lengths = 4 * np.diff(starts, append=values.size)
    inside = values[starts]
    most = 1 << SIZES[-1]
    times = -(-lengths // most)  # a longer run is several
    runs = np.full(int(times.sum()), most, np.int64)
    runs[np.cumsum(times) - 1] = lengths - (times - 1) * most
    inside = np.repeat(inside, times)
    limits = np.array([1 << size for size in SIZES])
    which = np.searchsorted(limits, runs)
    bits = np.array(SIZES)[which]
    words = (((1 << 2 | which) << bits | (runs - 1)) << _WORD) | np.where(inside, 255, 0)
    width = 3 + bits + _WORD
    shifts = np.arange(_WIDEST - 1, -1, -1)
    table = (words[:, None] >> shifts) & 1
    stream = table[shifts < width[:, None]]
    head = f"{4 * values.size:032b}{_WORD - 1:05b}" + "".join(f"{size - 1:04b}" for size in SIZES)
    packed: list[int] = np.packbits(np.concatenate([[int(c) for c in head], stream]).astype(np.uint8)).tolist()
    return packed


def _score(cosines: NDArray[np.float32]) -> float:
    """Label Studio takes scores of 0 to 1: a negative mean cosine counts 0."""
    return min(1.0, max(0.0, round(float(cosines.mean(dtype=np.float64)), 6)))


def labelling_interface(names: Sequence[str], colours: Sequence[Sequence[int]]) -> str:
    """The XML that a project's settings take: an image and a brush of each label."""
    rows = "".join(
        f'    <Label value="{name}" background="#{red:02x}{green:02x}{blue:02x}"/>\n'
        for name, (red, green, blue) in zip(names, colours, strict=True)
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        f'  <BrushLabels name="tag" toName="image">\n{rows}  </BrushLabels>\n</View>\n'
    )


@final
class LabelStudio:
    """``label_studio.json`` (a task a photo, its mask as a prediction) and ``label_studio.xml`` (the interface).

    Pictures are named as Label Studio's local files: ``/data/local-files/?d=<folder>/<photo>``, below the folder that
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT names.

    Args:
        clusters: K where a label means the same in all photos; 0: the one label ``region``, a brush a region.
        folder: name of the photos' folder below the document root.
        about: what made the masks: the predictions' ``model_version``.
    """

    name = "label-studio"
    files = ("label_studio.json", "label_studio.xml")

    def __init__(self, clusters: int, *, folder: str, about: str) -> None:
        self.clusters = clusters
        self.folder = folder
        self.about = about

    def photo(self, mask: PhotoMask, folder: Path) -> dict[str, Any]:
        """The photo's task."""
        height, width = mask.labels.shape
        results: list[Mapping[str, Any]] = []
        present = np.unique(mask.labels)
        for label in present.tolist():
            if label == mask.void:
                continue
            here = mask.labels == label
            name = f"cluster {label}" if self.clusters else "region"
            one: dict[str, Any] = {
                "id": hashlib.blake2b(f"{mask.index} {label}".encode(), digest_size=5).hexdigest(),
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": brush_rle(here), "brushlabels": [name]},
            }
            if mask.cosine is not None:
                one["score"] = _score(mask.cosine[here])
            results.append(one)
        prediction: dict[str, Any] = {"model_version": self.about, "result": results}
        if mask.cosine is not None:
            prediction["score"] = _score(mask.cosine)
        path = quote(os.fsencode(f"{self.folder}/{mask.name}" if self.folder else mask.name))
        return {"data": {"image": f"/data/local-files/?d={path}"}, "predictions": [prediction]}

    def finish(self, folder: Path, pieces: Callable[[], Iterator[Any]]) -> None:
        """Write both files."""
        names = [f"cluster {c}" for c in range(self.clusters)] or ["region"]
        text = labelling_interface(names, palette(len(names)).tolist())
        write_bytes(folder / "label_studio.xml", text.encode())
        write_list(folder / "label_studio.json", pieces())
