"""Photos inside a zip file: a second kind of ``Images``, as somebody else would write one."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from cyborgs.data.decode import Pixels, decode


class ZippedPhotos:
    """The members of a zip file, in the order of their names. Opened for each read: threads and forks share nothing."""

    def __init__(self, path: Path, members: Sequence[zipfile.ZipInfo] | None = None) -> None:
        self.path = path
        with zipfile.ZipFile(path) as file:
            self.members = list(members or sorted(file.infolist(), key=lambda member: member.filename))

    def __len__(self) -> int:
        return len(self.members)

    def name(self, i: int) -> str:
        return self.members[i].filename

    def size(self, i: int) -> tuple[int, int]:
        height, width, _ = self.read(i).shape
        return height, width

    def file_size(self, i: int) -> int:
        return self.members[i].file_size

    def content(self, i: int) -> bytes:
        with zipfile.ZipFile(self.path) as file:
            return file.read(self.members[i])

    def read(self, i: int) -> Pixels:
        return decode(self.content(i), self.name(i))

    def fingerprint(self) -> str:
        return f"{hash(tuple((member.filename, member.CRC) for member in self.members)):x}"

    def subset(self, indices: Sequence[int]) -> ZippedPhotos:
        return ZippedPhotos(self.path, [self.members[i] for i in indices])


def zipped(folder: Path, path: Path) -> ZippedPhotos:
    """The files of a folder, in a zip file."""
    with zipfile.ZipFile(path, "w") as file:
        for photo in folder.iterdir():
            file.write(photo, photo.name)
    return ZippedPhotos(path)
