"""COCO's JSON files: instances (polygons, run lengths, crowds) and panoptic segments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.matching import match, none_of, required, without_suffix
from cyborgs.data.annotations.png import MAX_PIXELS, numbered, read_identifiers
from cyborgs.data.annotations.run_lengths import Malformed, mask_of
from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.errors import UserError, printable


def open_coco(path: Path, names: Sequence[str]) -> CocoInstances | CocoPanoptic:
    """What the file holds: panoptic where its annotations have ``segments_info``, else instances.

    Raises:
        UserError: cannot be read, is no such file, or lacks what one needs; names the entry.
    """
    document = _Document(path)
    if any("segments_info" in annotation for annotation in document.annotations[:1]):
        return CocoPanoptic(document, names)
    return CocoInstances(document, names)


class _Document:
    """The checked parts of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = printable(str(path))
        try:
            whole = json.loads(path.read_bytes())
        except OSError as error:
            raise UserError(f"{self.where}: cannot be read ({error.strerror}).") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.where}: is no JSON ({error}).") from error
        if not isinstance(whole, dict):
            raise UserError(f"{self.where}: need an object with images, annotations and categories.")
        self.images = self._list(whole, "images", ("id", "file_name", "height", "width"))
        self.annotations = self._list(whole, "annotations", ("image_id",))
        categories = sorted(self._list(whole, "categories", ("id", "name")), key=lambda c: self._number(c["id"], "id"))
        self.class_names = tuple(str(category["name"]) for category in categories)
        self.class_of = {category["id"]: c for c, category in enumerate(categories)}
        if len(self.class_of) != len(categories):
            raise UserError(f"{self.where}: two categories have the same id.")
        for number, image in enumerate(self.images):
            self._identifier(image["id"], f"images, entry {number}: id")
            for field in ("height", "width"):
                if self._number(image[field], f"images, id {image['id']}: {field}") < 1:
                    raise UserError(f"{self.where}: images, id {image['id']}: {field} is {image[field]}.")
            if image["height"] * image["width"] > MAX_PIXELS:
                raise UserError(f"{self.where}: images, id {image['id']}: more than {MAX_PIXELS} pixels.")
        if len({image["id"] for image in self.images}) != len(self.images):
            raise UserError(f"{self.where}: two images have the same id.")
        for number, annotation in enumerate(self.annotations):
            self._identifier(annotation["image_id"], f"annotations, entry {number}: image_id")

    def _list(self, whole: Mapping[str, Any], key: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
        items = whole.get(key)
        if not isinstance(items, list):
            raise UserError(f"{self.where}: has no list {key!r}. Need images, annotations and categories.")
        for number, item in enumerate(items):
            lacking = [f for f in fields if f not in item] if isinstance(item, dict) else list(fields)
            if lacking:
                raise UserError(f"{self.where}: {key}, entry {number}: lacks {', '.join(lacking)}.")
        return items

    def _number(self, value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(f"{self.where}: {what}: need a whole number, got {value!r}.")
        return value

    def _identifier(self, value: Any, what: str) -> None:
        if not isinstance(value, str):
            self._number(value, what)

    def by_file(self) -> dict[str, dict[str, Any]]:
        """Entries of ``images`` by file name without suffix.

        Raises:
            UserError: two images have the same; names both.
        """
        found: dict[str, dict[str, Any]] = {}
        for image in self.images:
            first = found.setdefault(without_suffix(str(image["file_name"])), image)
            if first is not image:
                raise UserError(
                    f"{self.where}: images, ids {first['id']} and {image['id']}: {first['file_name']} and "
                    f"{image['file_name']} have the same name but for the suffix."
                )
        return found

    def crowd(self, annotation: Mapping[str, Any], entry: str) -> bool:
        """Whether an annotation or segment is a crowd."""
        value = annotation.get("iscrowd", 0)
        if value not in (0, 1, None):
            raise UserError(f"{self.where}: {entry}: iscrowd is 0 or 1, got {value!r}.")
        return bool(value)

    def category(self, annotation: Mapping[str, Any], entry: str) -> int:
        """The class of an annotation or segment."""
        identifier = annotation.get("category_id")
        if not isinstance(identifier, int) or isinstance(identifier, bool) or identifier not in self.class_of:
            raise UserError(f"{self.where}: {entry}: category_id {identifier!r} is not among the categories.")
        return self.class_of[identifier]


@final
class CocoInstances:
    """Objects, painted from the largest to the smallest, so that a small one lies over a large one.

    What no object covers is one more region, of no class. Crowds are void where no object covers them.
    """

    kind: Final = "coco"

    def __init__(self, document: _Document, names: Sequence[str]) -> None:
        self._document = document
        self._names = tuple(names)
        self._images = match(names, document.by_file(), document.where)
        self._of_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in self._images if image}
        for annotation in document.annotations:
            if annotation["image_id"] in self._of_image:
                self._of_image[annotation["image_id"]].append(annotation)
        document.annotations = []  # those of other photos are let go
        self.class_names = document.class_names
        self.missing = none_of(self._images)

    def place(self, i: int) -> Path:
        """The JSON file."""
        return self._document.path

    def _painted(self, i: int) -> tuple[Labels, list[int]]:
        """Per pixel -1 crowd, 0 nothing, 1.. the objects; and the objects' classes."""
        document = self._document
        image = required(self._images[i], self._names[i], document.where)
        size = (int(image["height"]), int(image["width"]))
        masks: list[tuple[int, int, NDArray[np.bool_], int]] = []
        out = np.zeros(size, np.int32)
        for number, annotation in enumerate(self._of_image[image["id"]]):
            entry = f"annotation {annotation.get('id', number)} of image {image['id']}"
            try:
                mask = mask_of(annotation.get("segmentation"), size)
            except Malformed as error:
                raise UserError(f"{document.where}: {entry}: {error}.") from error
            if document.crowd(annotation, entry):
                out[mask] = VOID
            else:
                masks.append((int(mask.sum()), number, mask, document.category(annotation, entry)))
        classes = []
        for area, _, mask, category in sorted(masks, key=lambda m: (-m[0], m[1])):
            if area:
                classes.append(category)
                out[mask] = len(classes)
        return out, classes

    def regions(self, i: int) -> Labels:
        """See the class; an object that others cover whole has no region."""
        painted, _ = self._painted(i)
        return numbered(painted, painted == VOID)

    def classes(self, i: int) -> Labels:
        """Class of the object that lies uppermost, -1 elsewhere."""
        painted, classes = self._painted(i)
        return np.array([VOID, *classes, VOID], np.int32)[painted]  # the last is crowd's, index -1

    def annotators(self, i: int) -> list[Labels]:
        """One."""
        return [self.regions(i)]


@final
class CocoPanoptic:
    """Every pixel one segment of objects or stuff: a PNG each in the folder named as the JSON file."""

    kind: Final = "coco"

    def __init__(self, document: _Document, names: Sequence[str]) -> None:
        self._document = document
        self._names = tuple(names)
        self._folder = document.path.with_suffix("")
        if not self._folder.is_dir():
            raise UserError(f"{printable(str(self._folder))}: no such folder; it holds the PNGs of {document.where}.")
        of_image: dict[Any, dict[str, Any]] = {}
        for number, annotation in enumerate(document.annotations):
            if not isinstance(annotation.get("segments_info"), list) or not isinstance(
                annotation.get("file_name"), str
            ):
                raise UserError(f"{document.where}: annotations, entry {number}: lacks segments_info or file_name.")
            if of_image.setdefault(annotation["image_id"], annotation) is not annotation:
                raise UserError(f"{document.where}: two annotations of image {annotation['image_id']}.")
        entries = {key: (image, of_image.get(image["id"])) for key, image in document.by_file().items()}
        annotated = {key: (image, found) for key, (image, found) in entries.items() if found is not None}
        self._found = match(names, annotated, document.where)
        self.class_names = document.class_names
        self.missing = none_of(self._found)

    def place(self, i: int) -> Path:
        """Its PNG."""
        _, annotation = required(self._found[i], self._names[i], self._document.where)
        return self._folder / str(annotation["file_name"])

    def _segments(self, i: int) -> tuple[Labels, list[int], list[bool]]:
        """Number of each pixel's segment among the JSON's (-1 void), classes, and which are crowds."""
        document = self._document
        image, annotation = required(self._found[i], self._names[i], document.where)
        path = self._folder / annotation["file_name"]
        try:
            inside = path.resolve().is_relative_to(self._folder.resolve())
        except (OSError, ValueError):  # what no file can be named, links in a circle
            inside = False
        if not inside:
            raise UserError(f"{document.where}: file_name {annotation['file_name']!r} leads out of its folder.")
        identifiers = read_identifiers(path)
        if identifiers.shape != (image["height"], image["width"]):
            raise UserError(
                f"{printable(str(path))}: has {identifiers.shape[1]} x {identifiers.shape[0]} pixels, "
                f"{document.where} says {image['width']} x {image['height']}."
            )
        entry = f"segments_info of image {image['id']}"
        infos = [
            info for info in annotation["segments_info"] if isinstance(info, dict) and isinstance(info.get("id"), int)
        ]
        if len(infos) != len(annotation["segments_info"]) or len({info["id"] for info in infos}) != len(infos):
            raise UserError(f"{document.where}: {entry}: an entry lacks its id, or two have the same.")
        known = {info["id"]: number for number, info in enumerate(infos)} | {0: VOID}
        values, inverse = np.unique(identifiers, return_inverse=True)
        unknown = [int(value) for value in values if int(value) not in known]
        if unknown:
            raise UserError(
                f"{printable(str(path))}: holds segment {unknown[0]}, which {document.where} lacks ({entry})."
            )
        segments = np.array([known[int(value)] for value in values], np.int32)[inverse.reshape(identifiers.shape)]
        return (
            segments,
            [document.category(info, entry) for info in infos],
            [document.crowd(info, entry) for info in infos],
        )

    def regions(self, i: int) -> Labels:
        """Each segment; crowds and unlabelled pixels are void."""
        segments, _, crowd = self._segments(i)
        return numbered(segments, np.array([*crowd, True])[segments])

    def classes(self, i: int) -> Labels:
        """Class of the segment, -1 where unlabelled (a crowd has its class)."""
        segments, classes, _ = self._segments(i)
        return np.array([*classes, VOID], np.int32)[segments]

    def annotators(self, i: int) -> list[Labels]:
        """One."""
        return [self.regions(i)]
