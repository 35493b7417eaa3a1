"""Photos with a class each, split into train and test: a folder in any of four layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.images import Images, PhotoFiles
from cyborgs.data.listing import list_images
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.class_lists import lines, listed, must_exist
from cyborgs.evaluation.sets.layouts import TESTS, parts_of_layouts
from cyborgs.evaluation.sets.splits import counted, fingerprint, stratified

UInt8 = NDArray[np.uint8]
_SHARE: Final = 60
_HALF: Final = 61  # streams of numpy_generator(seed, "evaluation", ...)


@dataclass(frozen=True)
class ClassifiedSet:
    """Photos with a class each. ``read(i)`` decodes one; nothing is kept."""

    photos: Images
    labels: NDArray[np.int64]
    """(N,): the class of each photo, its number in ``classes``."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3). Raises ``data.decode.UnreadableImage`` naming the file."""
        return self.photos.read(i)

    def name(self, i: int) -> str:
        """What messages call photo i."""
        return self.photos.name(i)

    def part(self, numbers: Iterable[int]) -> ClassifiedSet:
        """The photos of these numbers, in their order."""
        chosen = list(numbers)
        return ClassifiedSet(self.photos.subset(chosen), self.labels[np.array(chosen, np.int64)], self.classes)


@dataclass(frozen=True)
class ClassifiedData:
    """Photos to learn from and photos to be judged by."""

    train: ClassifiedSet
    test: ClassifiedSet
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Files that are not used, by reason."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know: a split of our own, classes without test photos."""

    @property
    def counts(self) -> Mapping[str, int]:
        """``train``, ``test``, ``classes``, and ``skipped: REASON``."""
        return counted(len(self.train), len(self.test), len(self.train.classes), self.left_out)

    @cached_property
    def fingerprint(self) -> str:
        """See ``splits.fingerprint``; of classes and the split too."""
        return fingerprint(
            {"train": self.train.photos, "test": self.test.photos},
            [*self.train.classes, self.train.labels.tobytes().hex(), self.test.labels.tobytes().hex()],
        )

    def share(self, share: float, seed: int) -> ClassifiedSet:
        """A stratified part of the training photos; see ``splits.stratified``."""
        if share == 1:
            return self.train
        return self.train.part(stratified(self.train.labels, share, seed, _SHARE).tolist())


def open_folders(data: str, seed: int) -> ClassifiedData:
    """The labelled photos below a folder, with its own split or halves drawn from the seed.

    Layouts, looked for in this order; ``val`` is taken before ``test``:

    - Lists: ``train.txt`` and ``val.txt`` or ``test.txt``, a photo a line: ``CLASS/.../x.jpg``, or ``x.jpg LABEL``
      (divided by a tab where names hold blanks). Photos lie beside the lists, one folder above, or in a folder there
      (``101_ObjectCategories/``).
    - Tiny ImageNet: ``train/CLASS/**``, ``val/images/*`` and ``val/val_annotations.txt``.
    - Class folders of both: ``train/CLASS/**``, ``val/CLASS/**`` or ``test/CLASS/**`` (ImageNet).
    - Class folders: ``CLASS/**``; of each class half the photos are for training, an odd one too. ``train`` is a class
      where photos lie in it, and neither ``val`` nor ``test`` stands beside it.

    No photo is opened; all are there.

    Raises:
        UserError: no such folder or none of these layouts; a listed file is missing (names the first, counts all); an
            empty class, fewer than two, a test class that train lacks; a photo listed twice or in both splits; folders
            that are parts of a layout of label maps (``images/``, ``masks/``).
    """
    root = Path(data)
    if not root.is_dir():
        raise UserError(f"{data}: no such folder. Give one with a subfolder of photos for each class.")
    other = next((root / f"{name}.txt" for name in TESTS if (root / f"{name}.txt").is_file()), None)
    if (root / "train.txt").is_file() and other is not None:
        return _from_lists(root / "train.txt", other)
    split = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if (root / "train").is_dir() and (split is not None or _holds_folders(root / "train")):
        annotations = root / "val" / "val_annotations.txt"
        if annotations.is_file():
            return _tiny_imagenet(root / "train", annotations)
        if split is None:
            raise UserError(
                f"{data}: has train/, but neither val/ nor test/ beside it. Add one, or give the class folders."
            )
        return _both(root / "train", split)
    return _halves(root, seed)


def _holds_folders(train: Path) -> bool:
    """Whether its photos lie in subfolders alone: those of classes."""
    try:
        return all("/" in name for name in list_images(train).names)
    except UserError:
        return False


def _both(train: Path, test: Path) -> ClassifiedData:
    left_out: Counter[str] = Counter()
    photos, names = _class_folders(train, left_out)
    judged, test_names = _class_folders(test, left_out, least=1)
    return _data(train, photos, names, test, judged, test_names, left_out)


def _halves(root: Path, seed: int) -> ClassifiedData:
    left_out: Counter[str] = Counter()
    photos, names = _class_folders(root, left_out)
    few = [name for name, n in Counter(names).items() if n < 2]
    if few:
        raise UserError(
            f"{root / few[0]}: need at least two photos of each class (one to learn from, one to be judged)."
        )
    classes = _ordered(names)
    whole = ClassifiedSet(PhotoFiles(tuple(photos)), _numbers(names, classes), classes)
    first = stratified(whole.labels, 0.5, seed, _HALF)
    rest = np.setdiff1d(np.arange(len(whole)), first)
    note = f"{root} has no split of its own: train and test are halves of each class, drawn from seed {seed}"
    return ClassifiedData(whole.part(first.tolist()), whole.part(rest.tolist()), dict(left_out), (note,))


def _class_folders(root: Path, left_out: Counter[str], least: int = 2) -> tuple[list[Path], list[str]]:
    """Photos below each subfolder, and their subfolder's name."""
    try:
        classes = sorted(e.name for e in root.iterdir() if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror}).") from error
    parts = parts_of_layouts(classes)
    if parts:
        raise UserError(
            f"{root}: {' and '.join(parts[:2])} are no classes, but photos and label maps of a class per pixel. Take a "
            "protocol for those (cyborgs evaluate --help), or give a folder with a subfolder for each class."
        )
    if len(classes) < least:
        raise UserError(f"{root}: need a subfolder for each class, at least {least}; found {len(classes)}.")
    photos: list[Path] = []
    names: list[str] = []
    for name in classes:
        try:
            listing = list_images(root / name)
        except UserError as error:
            raise UserError(f"{root}: class {name} is empty or cannot be read. {error}") from error
        photos += [root / name / photo for photo in listing.names]
        names += [name] * len(listing.names)
        _count(left_out, "files that are no photos", listing.other)
        _count(left_out, "links and folders that cannot be followed", len(listing.skipped))
    return photos, names


def _count(left_out: Counter[str], reason: str, number: int) -> None:
    if number:
        left_out[reason] += number


def _tiny_imagenet(train: Path, annotations: Path) -> ClassifiedData:
    """``val_annotations.txt``: name, class and a box a line, divided by tabs."""
    left_out: Counter[str] = Counter()
    photos, names = _class_folders(train, left_out)
    folder = annotations.parent / "images"
    judged: list[Path] = []
    judged_names: list[str] = []
    for number, line in lines(annotations):
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) < 2:
            raise UserError(f"{annotations}, line {number}: need a photo and its class, got {line!r}.")
        judged.append(folder / words[0].strip())
        judged_names.append(words[1].strip())
    must_exist(annotations, judged, "")
    _count(left_out, f"photos that {annotations.name} does not name", len(list_images(folder).names) - len(set(judged)))
    return _data(train, photos, names, annotations, judged, judged_names, left_out)


def _from_lists(train: Path, test: Path) -> ClassifiedData:
    photos, names = listed(train, ())
    judged, judged_names = listed(test, names)
    return _data(train, photos, names, test, judged, judged_names, Counter())


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Each class once: numbers by value, names by code points."""
    every = set(names)
    return tuple(sorted(every, key=int) if all(n.isdecimal() for n in every) else sorted(every))


def _numbers(names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    number = {name: c for c, name in enumerate(classes)}
    return np.array([number[name] for name in names], np.int64)


def _data(
    train: Path,
    photos: Sequence[Path],
    names: Sequence[str],
    test: Path,
    judged: Sequence[Path],
    judged_names: Sequence[str],
    left_out: Counter[str],
) -> ClassifiedData:
    classes = _ordered(names)
    if len(classes) < 2:
        raise UserError(f"{train}: need photos of at least two classes, found {classes[0]} alone.")
    present = set(judged_names)
    unknown = sorted(present - set(classes))
    if unknown:
        raise UserError(
            f"{test}: class {unknown[0]} is unknown to {train} ({len(unknown)} such classes). "
            "Both need the same class names."
        )
    for where, names_there in ((train, photos), (test, judged)):
        twice = [path for path, n in Counter(names_there).items() if n > 1]
        if twice:
            raise UserError(f"{where}: {twice[0]} is listed twice ({len(twice)} such photos).")
    both = sorted(set(photos) & set(judged))
    if both:
        raise UserError(f"{both[0]} is in {train} and in {test}; {len(both)} photos are in both.")
    lacking = [name for name in classes if name not in present]
    notes = (f"{len(lacking)} classes have no test photo: {', '.join(lacking[:5])}",) if lacking else ()
    return ClassifiedData(
        ClassifiedSet(PhotoFiles(tuple(photos)), _numbers(names, classes), classes),
        ClassifiedSet(PhotoFiles(tuple(judged)), _numbers(judged_names, classes), classes),
        dict(left_out),
        notes,
    )
