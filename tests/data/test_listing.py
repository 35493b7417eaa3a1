"""Folders and lists: order, links, names, and what is said when there is nothing to read."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cyborgs.data.listing import InputError, list_images

NOBODY = 65534


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_folder_recursive_sorted_and_by_suffix(tmp_path: Path) -> None:
    photos = ["b/z.PNG", "a.jpg", "b/a.jpeg", "b/c/d.TIFF", "Z.webp", "e.tif", "f.bmp", "g.gif"]
    for name in [*photos, "notes.txt", "b/jpg", "b/x.jpg.part"]:
        touch(tmp_path / name)
    listing = list_images(tmp_path)
    assert listing.names == tuple(sorted(photos))
    assert (listing.root, listing.other, listing.skipped) == (str(tmp_path), 3, ())
    assert list_images(str(tmp_path)) == listing


def test_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        touch(tmp_path / f"{i % 3}" / f"{i}.jpg")
        (tmp_path / f"link{i}").symlink_to(tmp_path / f"{i % 3}")
    expected = list_images(tmp_path)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Path) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Reversed)
    assert list_images(tmp_path) == expected
    assert len(expected.names) == 20
    assert len(expected.skipped) == 20


def test_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "far.jpg")
    touch(tmp_path / "data" / "near.jpg")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "file.jpg").symlink_to(tmp_path / "elsewhere" / "far.jpg")
    (tmp_path / "data" / "note.txt").symlink_to(tmp_path / "elsewhere" / "far.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for root in ("data", "link"):
        listing = list_images(tmp_path / root)
        assert listing.names == ("file.jpg", "folder/far.jpg", "near.jpg")
        assert (listing.skipped, listing.other) == ((), 1)


def test_links_that_lead_nowhere_or_round_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path / "sub" / "photo.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "missing.jpg")
    (tmp_path / "gone").symlink_to(tmp_path / "missing")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "there").symlink_to(tmp_path / "back")
    (tmp_path / "back").symlink_to(tmp_path / "there")
    listing = list_images(tmp_path)
    assert listing.names == ("sub/photo.jpg",)
    skipped = dict(listing.skipped)
    assert set(skipped) == {"gone.jpg", "gone", "self.png", "there", "back", "sub/up"}
    assert skipped["gone.jpg"] == skipped["gone"] == "a link that leads nowhere"
    assert "cannot be followed" in skipped["self.png"]
    assert "listed already" in skipped["sub/up"]


def test_a_circle_of_folders_is_walked_once(tmp_path: Path) -> None:
    for a, b in (("one", "two"), ("two", "three"), ("three", "one")):
        touch(tmp_path / a / f"{a}.jpg")
        (tmp_path / a / "next").symlink_to(tmp_path / b)
    listing = list_images(tmp_path / "one")
    assert listing.names == ("next/next/three.jpg", "next/two.jpg", "one.jpg")
    assert [name for name, _ in listing.skipped] == ["next/next/next"]


def test_a_pipe_is_no_photo(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert list_images(tmp_path).skipped == (("pipe.jpg", "no regular file"),)


NAMES = [
    "фото/снимок.jpg".encode(),
    "写真/山.jpg".encode(),
    "صورة.jpg".encode(),
    "e\u0301 \u00e9.jpg".encode(),
    b"latin\xe9\xff.jpg",
    b"sub\xfe/a.jpg",
    b"new\nline.jpg",
    b' "quote", comma.jpg',
    b"back\\slash.jpg",
]


def test_names_in_any_script_and_not_utf8(tmp_path: Path) -> None:
    for name in NAMES:
        touch(tmp_path / os.fsdecode(name))
    listing = list_images(tmp_path)
    assert sorted(map(os.fsencode, listing.names)) == sorted(NAMES)
    assert all((tmp_path / name).read_bytes() == b"x" for name in listing.names)


def test_text_list(tmp_path: Path) -> None:
    other = touch(tmp_path / "other" / "far.jpg")
    lines = [b"# my photos", b"", b"b.jpg", b"missing.jpg\r", b"  ", b"sub/a.dat", os.fsencode(other), b"latin\xe9.jpg"]
    path = tmp_path / "lists" / "photos.txt"
    path.parent.mkdir()
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    listing = list_images(path)
    assert listing.root == str(tmp_path / "lists")
    assert listing.names == ("b.jpg", "missing.jpg", "sub/a.dat", str(other), "latin\udce9.jpg")


def error(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list_images(path)
    assert str(path) in str(caught.value)
    str(caught.value).encode()
    return str(caught.value)


def test_missing_and_empty(tmp_path: Path) -> None:
    assert "no such folder" in error(tmp_path / "missing")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no photos" in error(empty)
    touch(empty / "a.txt")
    (empty / "gone.jpg").symlink_to("nowhere")
    assert "1 other files" in error(empty)
    assert "gone.jpg: a link that leads nowhere" in error(empty)
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    assert "empty" in error(tmp_path / "empty.txt")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\0\0")
    assert "neither a folder nor a text list" in error(tmp_path / "photo.jpg")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    error(tmp_path / "loop")


def as_nobody(task: Callable[[], str]) -> str:
    """What the task says when it is run as a user without rights, in a process of its own."""
    if os.getuid() not in (0, NOBODY):
        return task()  # an ordinary user: permissions hold as they are
    reader, writer = os.pipe()
    # The interpreter has threads by now, which fork in general does not suit: the child makes no use of them.
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            answer = task()
        except BaseException as problem:
            answer = f"{type(problem).__name__}: {problem}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_folders_without_read_permission(tmp_path: Path) -> None:
    for parent in [tmp_path, *tmp_path.parents]:  # let the other user reach it
        if parent.stat().st_uid == os.getuid() and parent != parent.parent:
            parent.chmod(parent.stat().st_mode | 0o111)
    root = tmp_path / "data"
    touch(root / "open.jpg")
    touch(root / "closed" / "a.jpg")
    root.chmod(0o755)
    (root / "closed").chmod(0o000)
    try:
        said = as_nobody(lambda: repr(list_images(root)))
        assert "names=('open.jpg',)" in said
        assert "('closed', 'folder cannot be read (Permission denied)')" in said
        said = as_nobody(lambda: repr(list_images(root / "closed")))
        assert (
            said
            == f"InputError: {root / 'closed'}: cannot be read (Permission denied). Check the folder's permissions."
        )
        said = as_nobody(lambda: repr(list_images(root / "closed" / "a.jpg")))
        assert said.startswith(f"InputError: {root / 'closed' / 'a.jpg'}: ")
        assert "Permission denied" in said
    finally:
        (root / "closed").chmod(0o755)


def test_a_hundred_thousand_names(tmp_path: Path) -> None:
    """At most 2 s and 300 bytes each: asserted with threefold slack for the time, since the machine may be busy."""
    folders = [tmp_path / f"folder{i:03d}" for i in range(100)]
    for folder in folders:
        source = touch(folder / "photograph.jpg")
        for i in range(999):
            os.link(source, f"{folder}/photograph_{i:012d}.jpg")
    start = time.process_time()
    listing = list_images(tmp_path)
    seconds = time.process_time() - start
    assert len(listing.names) == 100_000
    assert seconds <= 6
    del listing
    tracemalloc.start()
    listing = list_images(tmp_path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / len(listing.names) <= 300
    assert peak / len(listing.names) <= 300
