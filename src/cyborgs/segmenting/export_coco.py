"""COCO's formats for masks: instances (a connected part each) and panoptic (a cluster each)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, final

import numpy as np
from pycocotools import mask as coco_mask

from cyborgs.data.output import put, rgb_png_bytes
from cyborgs.segmenting.json_file import write_object
from cyborgs.segmenting.parts import parts_of
from cyborgs.structures import PhotoMask

VOID_ID = 0
"""Panoptic id of pixels that belong to no segment."""


def categories(clusters: int, thing: bool | None = None) -> list[dict[str, Any]]:
    """A category for each cluster, ids from 1; with 0 clusters the one category ``region``.

    ``thing``: what ``isthing`` says; None: no such field.
    """
    names = [f"cluster {c}" for c in range(clusters)] or ["region"]
    more = {} if thing is None else {"isthing": int(thing)}
    return [{"id": i, "name": name, "supercategory": "cyborgs", **more} for i, name in enumerate(names, 1)]


def image_entry(mask: PhotoMask) -> dict[str, Any]:
    """COCO's image: sizes are as displayed. ``exif_orientation`` where a tool that ignores EXIF would see another picture."""
    height, width = mask.labels.shape
    entry = {"id": mask.index + 1, "file_name": mask.name, "width": width, "height": height}
    if mask.orientation != 1:
        entry["exif_orientation"] = mask.orientation
    return entry


def compressed(counts: list[int], height: int, width: int) -> dict[str, Any]:
    """COCO's compressed RLE, with its counts as text."""
    found = coco_mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    return {"size": [height, width], "counts": found["counts"].decode("ascii")}


@final
class CocoInstances:
    """``instances.json``: each connected part of a mask is an instance of its cluster.

    Args:
        clusters: K where a label means the same in all photos; 0: one category, and the label beside it.
        min_area: smaller parts are left out, and counted.
    """

    name = "coco"
    files = ("instances.json",)

    def __init__(self, clusters: int, *, min_area: int = 64) -> None:
        self.clusters = clusters
        self.min_area = min_area

    def photo(self, mask: PhotoMask, folder: Path) -> dict[str, Any]:
        """Image, annotations without ids, and how many parts were left out."""
        height, width = mask.labels.shape
        parts, smaller = parts_of(mask, self.min_area)
        annotations = []
        for part in parts:
            one: dict[str, Any] = {
                "image_id": mask.index + 1,
                "category_id": part.label + 1 if self.clusters else 1,
                "segmentation": compressed(part.counts, height, width),
                "area": part.area,
                "bbox": list(part.box),
                "iscrowd": 0,
            }
            if not self.clusters:
                one["label"] = part.label
            if part.score is not None:
                one["score"] = round(part.score, 6)
            annotations.append(one)
        return {"image": image_entry(mask), "annotations": annotations, "smaller": smaller}

    def finish(self, folder: Path, pieces: Callable[[], Iterator[Any]]) -> None:
        """Write the file; annotations are numbered from 1."""
        info = {
            "description": "Masks of cyborgs segment. Sizes are as displayed (EXIF orientation applied); parts are 4-connected.",
            "min_area": self.min_area,
            "smaller_parts_left_out": sum(piece["smaller"] for piece in pieces()),
        }

        def annotations() -> Iterator[dict[str, Any]]:
            number = 0
            for piece in pieces():
                for one in piece["annotations"]:
                    number += 1
                    yield {"id": number, **one}

        head = {"info": info, "licenses": [], "categories": categories(self.clusters)}
        lists = {"images": (piece["image"] for piece in pieces()), "annotations": annotations()}
        write_object(folder / "instances.json", head, lists)


@final
class CocoPanoptic:
    """``panoptic.json`` and ``panoptic/<photo>.png``: each label of a photo is one segment.

    The format gives each pixel one segment, and a category of stuff at most one segment a photo: so clusters are stuff.
    Labels that mean something in their photo or group alone are things of the one category ``region``. A segment's id
    is its label + 1, which is unique within a photo; 0 is void.

    Args:
        clusters: K where a label means the same in all photos; otherwise 0.
    """

    name = "panoptic"
    files = ("panoptic", "panoptic.json")

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters

    def photo(self, mask: PhotoMask, folder: Path) -> dict[str, Any]:
        """Write the photo's PNG; its image and annotation."""
        ids = mask.labels.astype(np.uint16) + 1
        if mask.void is not None:
            ids[mask.labels == mask.void] = VOID_ID
        colours = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)
        put(folder / "panoptic" / mask.mask, rgb_png_bytes(colours))
        segments = []
        counts = np.bincount(ids.ravel())
        for number in np.flatnonzero(counts).tolist():
            if number == VOID_ID:
                continue
            here = ids == number
            rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
            x, y = int(columns[0]), int(rows[0])
            one = {
                "id": number,
                "category_id": number if self.clusters else 1,
                "area": int(counts[number]),
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                "iscrowd": 0,
            }
            if mask.cosine is not None:
                one["score"] = round(float(mask.cosine[here].mean(dtype=np.float64)), 6)
            segments.append(one)
        annotation = {
            "image_id": mask.index + 1,
            "file_name": str(PurePosixPath(mask.mask)),
            "segments_info": segments,
        }
        return {"image": image_entry(mask), "annotation": annotation}

    def finish(self, folder: Path, pieces: Callable[[], Iterator[Any]]) -> None:
        """Write the file."""
        info = {
            "description": "Masks of cyborgs segment. Sizes are as displayed (EXIF orientation applied); id = R + 256 G + 65536 B."
        }
        head = {"info": info, "licenses": [], "categories": categories(self.clusters, thing=not self.clusters)}
        lists = {
            "images": (piece["image"] for piece in pieces()),
            "annotations": (piece["annotation"] for piece in pieces()),
        }
        write_object(folder / "panoptic.json", head, lists)
