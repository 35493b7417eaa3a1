"""Artefacts: made once, found again, made anew where photos or settings are others or the file is damaged."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cyborgs.data.store_format import StoreError
from cyborgs.errors import UserError
from cyborgs.masks.config import SelectiveSearchConfig
from cyborgs.masks.selective_search import boxes
from cyborgs.masks.source import chunks
from cyborgs.prepare.artefact import Prepared, prepare
from cyborgs.prepare.makers import NearestNeighbours, SaliencyFolder, SelectiveSearchBoxes, SpectralResidual
from tests.faults import KILLED, in_child
from tests.prepare.fixed import COUNT, Photos

GROUPS = list(range(7))


@dataclass
class Boxes:
    """As many boxes as the photo's number says, up to 3; counts its groups."""

    setting: int = 1
    made: list[int] = field(default_factory=list)
    dies_at: int = -1
    name: str = "boxes"
    kind: Any = "boxes"
    width: int = 3
    needs_images: bool = True

    @property
    def identity(self) -> dict[str, Any]:
        return {"setting": self.setting}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        return chunks(count, 4)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[np.ndarray]:
        if group == self.dies_at:
            import os

            os._exit(KILLED)
        self.made.append(group)
        return [np.full((int(image[0, 0, 0]) % 4, 4), self.setting * int(image[0, 0, 0]), np.int32) for image in images]


class Run:
    """A run's folder, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []

    def __call__(self, maker: Any = None, photos: Photos | None = None, **more: Any) -> Prepared:
        self.said.clear()
        made = prepare(maker or Boxes(), photos or Photos(), self.folder, say=self.said.append, **more)
        assert made is not None
        return made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def test_holds_what_the_maker_made(run: Run) -> None:
    made = run()
    assert (len(made), made.kind, made.width) == (COUNT, "boxes", 3)
    for i in range(COUNT):
        assert made[i].dtype == np.int32
        np.testing.assert_array_equal(made[i], np.full((i % 4, 4), i))
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again[7], made[7])


def test_found_in_the_run_and_in_the_cache(run: Run, tmp_path: Path) -> None:
    run()
    assert "boxes: made; kept in" in run.said[-1]
    second = Boxes()
    run(second, Photos(broken=tuple(range(COUNT))))
    assert second.made == run.said == []
    other = Run(tmp_path / "other")
    other(second, Photos(broken=tuple(range(COUNT))))
    assert second.made == []
    assert "boxes: found in" in other.said[-1]
    assert (other.folder / "prepared" / "boxes.bin").read_bytes() == (
        run.folder / "prepared" / "boxes.bin"
    ).read_bytes()


@pytest.mark.parametrize(
    ("maker", "photos", "said"),
    [
        (Boxes(setting=2), Photos(), "has other settings; it is made anew"),
        (Boxes(), Photos(name="others"), "is of other photos; it is made anew"),
    ],
)
def test_others_are_made_anew_and_that_is_said(run: Run, maker: Boxes, photos: Photos, said: str) -> None:
    run()
    made = run(maker, photos)
    assert said in run.said[0]
    assert maker.made == GROUPS
    np.testing.assert_array_equal(made[3], np.full((3, 4), 3 * maker.setting))


@pytest.mark.parametrize("at", [30, 100, -5])
def test_damage_is_noticed_and_mended_from_the_cache(run: Run, at: int) -> None:
    run()
    file = run.folder / "prepared" / "boxes.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at:][1:])
    maker = Boxes()
    run(maker)
    assert "is damaged" in run.said[0]
    assert maker.made == []
    assert file.read_bytes() == whole


def test_damage_while_it_is_read(run: Run) -> None:
    made = run()
    file = run.folder / "prepared" / "boxes.bin"
    data = bytearray(file.read_bytes())
    data[30] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="checksum of record 0"):
        made[0]


def test_a_kill_leaves_nothing_half(run: Run) -> None:
    assert in_child(lambda: run(Boxes(dies_at=4)))[0] == KILLED
    assert not (run.folder / "prepared").exists()
    rest = Boxes()
    made = run(rest)
    assert rest.made == GROUPS[4:]
    np.testing.assert_array_equal(made[22], np.full((2, 4), 22))


def test_stopped_and_gone_on_with(run: Run) -> None:
    answers = iter([False, False, True])
    maker = Boxes()
    assert prepare(maker, Photos(), run.folder, say=run.said.append, stopped=lambda: next(answers)) is None
    assert not (run.folder / "prepared").exists()
    run(maker)
    assert maker.made == GROUPS


def test_without_a_cache_it_is_made_in_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    made = run(cache=tmp_path / "file" / "cache")
    assert "cannot be kept for later runs" in run.said[0]
    assert len(made) == COUNT
    assert [path.name for path in (run.folder / "prepared").iterdir()] == ["boxes.bin"]


def picture() -> np.ndarray:
    """A bright disc on noise."""
    image = np.random.default_rng(0).integers(90, 110, (120, 160, 3), dtype=np.uint8)
    return cv2.circle(image, (40, 80), 12, (255, 40, 40), -1)  # type: ignore[return-value]


def test_boxes_of_selective_search() -> None:
    config = SelectiveSearchConfig(min_side=8, boxes=5)
    maker = SelectiveSearchBoxes(config)
    (found,) = maker.label([picture()], 0, 0, 0)
    np.testing.assert_array_equal(found, boxes(picture(), config))
    assert found.dtype == np.int32
    assert maker.width == 5
    assert maker.identity != SelectiveSearchBoxes().identity


def test_saliency_is_where_the_disc_is() -> None:
    blank = np.full((50, 60, 3), 7, np.uint8)
    disc, nothing = SpectralResidual().label([picture(), blank], 0, 0, 0)
    assert disc.dtype == np.uint8
    assert disc.max() == 255
    y, x = np.unravel_index(disc.argmax(), disc.shape)
    assert abs((x + 0.5) / 64 * 160 - 40) < 20
    assert abs((y + 0.5) / 64 * 120 - 80) < 20
    assert not nothing.any()


def test_saliency_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "a" / "x.png"), values)
    maker = SaliencyFolder(tmp_path, ["a/x.jpg", "b.jpg"], "abc")
    np.testing.assert_array_equal(maker.label([np.empty(0)], 0, 0, 0)[0], values)
    with pytest.raises(UserError, match=r"b\.png: need the saliency of b\.jpg"):
        maker.label([np.empty(0)] * 2, 0, 0, 0)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"b\.png"):
        maker.label([np.empty(0)] * 2, 0, 0, 0)


def test_neighbours_by_a_loop() -> None:
    features = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    features[7] = 2 * features[3]  # the same direction: each the other's first
    found = NearestNeighbours(lambda: features, "abc", 4).label([np.empty(0)] * 30, 0, 0, 0)
    assert found[3][0] == 7
    assert found[7][0] == 3
    for i in range(30):
        cosines = [
            -2.0
            if i == j
            else float(np.dot(features[i], features[j]) / np.linalg.norm(features[i]) / np.linalg.norm(features[j]))
            for j in range(30)
        ]
        assert found[i].tolist() == sorted(range(30), key=lambda j: -cosines[j])[:4]
    few = NearestNeighbours(lambda: features[:3], "abc", 4).label([np.empty(0)] * 3, 0, 0, 0)
    assert [len(one) for one in few] == [2, 2, 2]
