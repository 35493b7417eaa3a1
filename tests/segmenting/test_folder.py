"""A second start: what is done stays, other settings are refused, nothing of the user's is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cyborgs.data.output import remove_leftovers
from cyborgs.errors import UserError
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.masks.grid import Grid
from cyborgs.segmenting.by_source import segment_source
from cyborgs.segmenting.folder import WORK
from cyborgs.segmenting.segment import segment
from tests.features.fakes import FakeBackbone, MemoryPhotos, blocks


class Counting:
    """An export that notes its calls, and dies where it is told to."""

    name = "counting"
    files = ("counting.json",)

    def __init__(self, dies_at: int | None = None) -> None:
        self.dies_at = dies_at
        self.seen: list[int] = []

    def photo(self, mask, folder):
        if mask.index == self.dies_at:
            raise KeyboardInterrupt
        self.seen.append(mask.index)
        return {"index": mask.index, "pixels": mask.labels.size, "mean": round(float(mask.cosine.mean()), 4)}

    def finish(self, folder, pieces):
        assert list(pieces()) == list(pieces())
        (folder / "counting.json").write_text(json.dumps(list(pieces())))


@pytest.fixture
def photos() -> MemoryPhotos:
    rng = np.random.default_rng(0)
    return MemoryPhotos([blocks(rng, cells=((6, 8), (3, 5))[i % 2])[0] for i in range(5)])


def made(photos, out: Path, export: Counting | None = None, backbone: FakeBackbone | None = None, **options):
    more = {"layers": ["layer2"], "clusters": 4, "threads": 0, "exports": lambda k: [export or Counting()], **options}
    return segment(photos, backbone or FakeBackbone(), out, **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_goes_on_where_it_was_killed(photos, tmp_path):
    made(photos, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        made(photos, tmp_path / "killed", Counting(dies_at=3))
    assert not (tmp_path / "killed/segments.csv").exists()
    assert json.loads((tmp_path / "killed/segmentation.json").read_text())["complete"] is False
    backbone, export = FakeBackbone(), Counting()
    made(photos, tmp_path / "killed", export, backbone)
    assert export.seen == [3, 4]
    assert backbone.calls == 2  # no first pass, and none of the photos that are done
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_torn_lines_and_lost_files_are_made_again(photos, tmp_path):
    made(photos, tmp_path / "whole")
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        made(photos, out, Counting(dies_at=4))
    for name in ("journal", "counting"):
        with open(out / WORK / f"{name}.jsonl", "ab") as file:
            file.write(b'3\t{"torn')
    (out / "labels/p1.png").unlink()
    (out / "overlays/p2.jpg").write_bytes(b"")  # as after a power cut
    export = Counting()
    made(photos, out, export)
    assert export.seen == [1, 2, 4]
    assert contents(out) == contents(tmp_path / "whole")


def test_a_finished_one_is_found(photos, tmp_path):
    made(photos, tmp_path)
    before = contents(tmp_path)
    backbone = FakeBackbone()
    assert made(photos, tmp_path, backbone=backbone) == {4: None}
    assert backbone.calls == 0
    assert contents(tmp_path) == before
    (tmp_path / "labels/p0.png").unlink()
    made(photos, tmp_path)
    assert contents(tmp_path) == before


def test_other_settings_are_refused_or_replaced(photos, tmp_path):
    made(photos, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"other settings \(clusters: 4 -> 3\). Choose another folder, or give --overwrite"
    ):
        made(photos, tmp_path, clusters=3)
    with pytest.raises(UserError, match="seed: 0 -> 1"):
        made(photos, tmp_path, seed=1)
    with pytest.raises(UserError, match="photos: "):
        made(MemoryPhotos(photos.images[:2]), tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "mine.txt").write_text("stays")
    made(MemoryPhotos(photos.images[:2]), tmp_path, clusters=3, overwrite=True)
    made(MemoryPhotos(photos.images[:2]), tmp_path.with_name(f"{tmp_path.name} fresh"), clusters=3)
    assert contents(tmp_path) == {**contents(tmp_path.with_name(f"{tmp_path.name} fresh")), "mine.txt": b"stays"}


def test_a_start_that_made_nothing_is_not_in_the_way(photos, tmp_path):
    with pytest.raises(UserError, match="clusters: 250 were asked for"):
        made(MemoryPhotos([photos.images[1][:16]]), tmp_path, clusters=250)
    made(photos, tmp_path, clusters=3)
    made(photos, tmp_path.with_name(f"{tmp_path.name} fresh"), clusters=3)
    assert contents(tmp_path) == contents(tmp_path.with_name(f"{tmp_path.name} fresh"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_is_never_touched(photos, tmp_path, overwrite):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/truth.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds labels, which is not known to be of cyborgs segment"):
        made(photos, tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == {"labels/truth.png": b"mine"}


@pytest.mark.parametrize("text", ["", "[]", '{"settings": 3}', "[" * 100_000])
def test_a_damaged_description(photos, tmp_path, text):
    (tmp_path / "segmentation.json").write_text(text)
    with pytest.raises(UserError, match=r"segmentation\.json: .*Choose another folder"):
        made(photos, tmp_path)


def features(images):
    return FakeBackbone().eval()(FakeBackbone().normalise(images), ["layer2"])["layer2"]


def test_grid_and_groups_by_the_protocol(photos, tmp_path):
    segment_source(photos, Grid(2), tmp_path / "grid", ids="dataset", labels=4)
    about = json.loads((tmp_path / "grid/segmentation.json").read_text())
    assert (about["source"], about["ids"], about["void"], about["photos"]) == ("grid", "dataset", None, 5)
    from PIL import Image

    with Image.open(tmp_path / "grid/labels/p0.png") as picture:
        labels = np.asarray(picture)
    assert np.array_equal(labels, np.kron([[0, 1], [2, 3]], np.ones((48, 64), int)))
    source = Bootstrap(features, clusters=(3, 3), group_size=2)
    assert segment_source(photos, source, tmp_path / "boot", ids="group", seed=7)
    assert not segment_source(photos, source, tmp_path / "boot", ids="group", seed=7)
    for g, group in enumerate(source.groups(5, 7, 0)):
        maps = source.label([photos.read(int(i)) for i in group], 7, 0, g)
        for i, one in zip(group, maps, strict=True):
            with Image.open(tmp_path / f"boot/labels/p{i}.png") as picture:
                full = np.asarray(picture)
            assert full.shape == photos.size(int(i))
            assert np.array_equal(full[4::8, 4::8], one.labels)
    table = (tmp_path / "boot/segments.csv").read_text().splitlines()
    assert table[0] == "photo,mask,regions"
    assert all(1 <= int(line.split(",")[-1]) <= 3 for line in table[1:])


def test_a_source_goes_on_too(photos, tmp_path):
    class Dies(Counting):
        def photo(self, mask, folder):
            if mask.index == self.dies_at:
                raise KeyboardInterrupt
            return mask.labels.tolist()

    def source():
        return Bootstrap(features, clusters=(2, 6), group_size=2)

    def write(out: Path, dies_at: int | None = None) -> None:
        segment_source(photos, source(), out, ids="group", exports=lambda k: [Dies(dies_at)], threads=0)

    last = int(source().groups(5, 0, 0)[1][1])
    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "killed", last)
    write(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_photos_of_a_source_are_cut_to_what_memory_holds(photos, tmp_path, monkeypatch):
    calls = []

    class OfPhoto:
        name, void, needs_images = "each", 9, True

        def groups(self, count, seed, cycle):
            return [np.arange(count)]

        def prepare(self, image):
            return image

        def label(self, images, seed, cycle, group):
            from cyborgs.structures import LabelMap

            calls.append(len(images))
            return [LabelMap(np.array([[9, 1]], np.uint8), 9) for _ in images]

    monkeypatch.setattr("cyborgs.segmenting.by_source.PIECE_PIXELS", 96 * 128 + 48 * 80)
    segment_source(photos, OfPhoto(), tmp_path, ids="photo")
    assert calls == [2, 2, 1]
    assert json.loads((tmp_path / "segmentation.json").read_text())["void"] == 9
    assert (tmp_path / "segments.csv").read_text().splitlines()[1].endswith(",1")


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from cyborgs.segmenting.segment import segment
from tests.features.fakes import FakeBackbone, MemoryPhotos, blocks

class Dies:
    name, files = "dies", ("dies.json",)
    def photo(self, mask, folder):
        if mask.index == 3:
            os.kill(os.getpid(), 9)
        return mask.index
    def finish(self, folder, pieces):
        (folder / "dies.json").write_text(str(list(pieces())))

rng = np.random.default_rng(0)
photos = MemoryPhotos([blocks(rng)[0] for _ in range(6)])
segment(photos, FakeBackbone(), Path(sys.argv[1]), layers=["layer2"], clusters=4, exports=lambda k: [Dies()])
"""


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    (tmp_path / "labels" / "a").mkdir(parents=True)
    leftovers = [tmp_path / "labels" / ".140649611380416.tmp", tmp_path / "labels" / "a" / ".7.tmp"]
    kept = tmp_path / "labels" / ".mine.tmp"
    for path in (*leftovers, kept):
        path.write_bytes(b"")
    remove_leftovers(tmp_path / "labels")
    assert not any(path.exists() for path in leftovers)
    assert kept.exists()


@pytest.mark.slow
def test_sigkill_in_the_middle_of_writing(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed")], check=False, timeout=120)
    assert killed.returncode == -9
    for out in ("killed", "whole"):
        text = KILLED.replace("mask.index == 3", "False")
        subprocess.run([sys.executable, "-c", text, str(tmp_path / out)], check=True, timeout=120)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
