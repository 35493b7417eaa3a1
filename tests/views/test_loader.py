"""Batches are a function of seed, epoch, step and image; neither workers, processes nor resuming change them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyborgs.data.decode import UnreadableImage
from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import InputError, list_images
from cyborgs.data.scan import scan
from cyborgs.seeds import numpy_generator
from cyborgs.structures import Batch
from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.loader import Batches
from cyborgs.views.micro_batches import Masks
from cyborgs.views.sample import Photo, make_views
from cyborgs.views.samplers import AroundBox, Overlapping, Salient
from cyborgs.views.side import Kind
from tests.conftest import make_photos

SPEC = ViewSpec(size=32, grid=4)
COUNT = 27


class ToyMasks:
    """A store with one map per image; at module level, so that it pickles."""

    void = 3

    def __init__(self, count: int, add: int = 0) -> None:
        self.count = count
        self.add = add

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 9, (6, 8), dtype=np.uint8) + np.uint8(self.add)


def broken_masks() -> Masks:
    raise InputError("masks/index: truncated. Make the masks anew.")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    folder = make_photos(tmp_path_factory.mktemp("photos"), COUNT)
    return ScannedImages.from_scan(scan(list_images(folder), use_cache=False))


def batches(images: Images, workers: int = 0, rank: int = 0, world: int = 1, micro_batch: int = 0) -> Batches:
    masks = partial(ToyMasks, len(images))
    return Batches(
        images,
        SPEC,
        batch_size=8,
        micro_batch=micro_batch,
        seed=1,
        workers=workers,
        rank=rank,
        world=world,
        open_masks=masks,
    )


def tensors(batch: Batch) -> Iterator[torch.Tensor]:
    yield batch.indices
    assert batch.label_order is not None
    yield batch.label_order
    for view in batch.views:
        yield view.images
        yield view.geometry.table
        if view.labels is not None:
            yield view.labels
    yield from batch.side.values()


def assert_same(a: list[Batch], b: list[Batch]) -> None:
    """Equal samples in the same order, however they are cut into batches."""
    assert sum(map(len, a)) == sum(map(len, b))
    for x, y in zip(zip(*map(tensors, a), strict=True), zip(*map(tensors, b), strict=True), strict=True):
        assert torch.equal(torch.cat(x), torch.cat(y))
        assert x[0].dtype == y[0].dtype


def flat(steps: Iterator[list[Batch]] | list[list[Batch]]) -> list[Batch]:
    return [batch for step in steps for batch in step]


def test_what_a_batch_holds(images: Images) -> None:
    loader = batches(images)
    assert loader.steps_per_epoch == 3
    steps = list(loader(2))
    assert [len(step) for step in steps] == [1, 1, 1]  # 27 photos: the last 3 are dropped
    order = loader.order(2)
    assert sorted(order.tolist()) == list(range(COUNT))
    for number, (batch,) in enumerate(steps):
        assert batch.first == 0
        assert batch.void == 3
        assert batch.indices.tolist() == order[8 * number : 8 * number + 8].tolist()
        for b, index in enumerate(batch.indices.tolist()):
            rng = numpy_generator(1, "sample", 2, index)
            made, labels = make_views(Photo(images.read(index), ToyMasks(COUNT)[index]), SPEC, rng)
            assert batch.label_order is not None
            np.testing.assert_array_equal(batch.label_order[b].numpy(), labels)
            for view, expected in zip(batch.views, made, strict=True):
                assert view.labels is not None
                np.testing.assert_array_equal(view.images[b].numpy(), expected.image)
                np.testing.assert_array_equal(view.labels[b].numpy(), expected.labels)
                assert view.geometry.y0[b] == expected.geometry.y0
                assert bool(view.geometry.flip[b]) == expected.geometry.flip


class ToyArtefact:
    """Something of each image; at module level, so that it pickles."""

    def __init__(self, kind: Kind, width: int = 0, count: int = COUNT) -> None:
        self.kind, self.width, self.count = kind, width, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> np.ndarray:
        rng = np.random.default_rng(index)
        if self.kind == "boxes":
            return np.concatenate([rng.integers(0, 20, (index % 4, 2)), rng.integers(8, 20, (index % 4, 2))], axis=1)
        if self.kind == "saliency":
            return rng.integers(0, 256, (10, 12), dtype=np.uint8)
        return (index + 1 + rng.permutation(COUNT - 1)[:5]) % COUNT


SIX = ViewSpec(
    size=64,
    grid=4,
    crops=(
        Crop(),
        Crop(sampler=Overlapping(0)),
        Crop(sampler=Salient("s")),
        Crop(size=32, sampler=AroundBox("b")),
        Crop(size=32, sampler=AroundBox("b", like=3)),
        Crop(size=32, photo="n", grid=2),
    ),
)


def six(images: Images, workers: int = 0, **more: Any) -> Batches:
    artefacts = {"b": ToyArtefact("boxes", 3), "s": ToyArtefact("saliency"), "n": ToyArtefact("neighbours", 5)}
    masks = partial(ToyMasks, len(images))
    more = {"artefacts": artefacts, **more}
    return Batches(images, SIX, batch_size=8, seed=1, workers=workers, open_masks=masks, **more)


def test_six_crops_with_all_that_rides_along(images: Images) -> None:
    rides = ("labels", "b", "s", "n")
    alone, many = flat(six(images)(1, rides=rides)), flat(six(images, 2)(1, rides=rides))
    assert_same(alone, many)
    assert_same(alone, flat(six(images, micro_batch=2)(1, rides=rides)))
    (batch, *_) = alone
    assert [view.images.shape[-1] for view in batch.views] == [64, 64, 64, 32, 32, 32]
    assert [view.labels.shape[-1] for view in batch.views if view.labels is not None] == [4, 4, 4, 4, 4, 2]
    shown = batch.side["n/shown"]
    for b, index in enumerate(batch.indices.tolist()):
        assert int(shown[b]) in ToyArtefact("neighbours")[index]
        assert batch.side["b/0/valid"][b].sum() <= index % 4
        assert tuple(batch.views[5].geometry.table[b, 5:].int().tolist()) == images.size(int(shown[b]))
    assert set(flat(six(images)(1, rides=("s",)))[0].side) == {f"s/{v}" for v in range(6)}
    assert_same(  # what rides along leaves the views where they are
        [replace(batch, side={}) for batch in alone], [replace(b, side={}) for b in flat(six(images)(1))]
    )


def test_an_artefact_that_is_missing_or_of_others(images: Images) -> None:
    with pytest.raises(InputError, match=r"'s' of each photo, which is not prepared \(prepared: b, n\)"):
        six(images, artefacts={"b": ToyArtefact("boxes"), "n": ToyArtefact("neighbours")})
    others = {name: ToyArtefact("boxes", count=3) for name in ("b", "s", "n")}
    with pytest.raises(InputError, match="n is of 3 images, the photos are 27"):
        six(images, artefacts=others)
    with pytest.raises(InputError, match="'depth'"):
        next(six(images)(0, rides=("depth",)))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_large_travels_too_and_is_counted(
    images: Images, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    small = six(images, workers).shared_bytes
    for room in ("loader", "workers"):
        monkeypatch.setattr(f"cyborgs.views.{room}.LARGE", 100)
    loader = six(images, workers)
    # Grids of 16 cells of labels and 64 bytes of saliency (5 of them; the last has 4 and 16), 3 boxes of 16 bytes, 5
    # neighbours of 8: all but the last labels (8 x 4 bytes) are at least 100 bytes for 8 images.
    large = 5 * 16 + 5 * 64 + 16 + 6 * 48 + 40
    assert loader.shared_bytes - small == large * (2 * 8 + 16) * workers
    assert_same(flat(loader(0, rides=("b", "s", "n"))), flat(six(images)(0, rides=("b", "s", "n"))))


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(images: Images, workers: int) -> None:
    alone, many = list(batches(images)(0)), list(batches(images, workers)(0))
    assert [[batch.first for batch in step] for step in alone] == [[batch.first for batch in step] for step in many]
    assert_same(flat(alone), flat(many))


def test_two_processes_make_the_batches_of_one(images: Images) -> None:
    parts = [list(batches(images, rank=rank, world=2)(1)) for rank in (0, 1)]
    for whole, low, high in zip(batches(images)(1), *parts, strict=True):
        assert (low[0].first, high[0].first) == (0, 4)
        assert_same(whole, low + high)


def test_micro_batches_make_the_batch(images: Images) -> None:
    steps = list(batches(images, workers=1, micro_batch=2)(1))
    assert [[batch.first for batch in step] for step in steps] == [[0, 2, 4, 6]] * 3
    for whole, step in zip(batches(images)(1), steps, strict=True):
        assert_same(whole, step)
    second = list(batches(images, rank=1, world=2, micro_batch=2)(1))
    assert [[batch.first for batch in step] for step in second] == [[4, 6]] * 3


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_resuming_gives_the_tail(images: Images, first: int) -> None:
    tail = list(batches(images)(0, first))
    assert len(tail) == 3 - first
    if tail:
        assert_same(flat(tail), flat(list(batches(images)(0))[first:]))


def test_epochs_and_seeds_differ(images: Images) -> None:
    loader = batches(images)
    assert loader.order(0).tolist() != loader.order(1).tolist()
    other = Batches(images, SPEC, batch_size=8, seed=2)
    assert loader.order(0).tolist() != other.order(0).tolist()
    (a,), (b,) = next(iter(loader(0))), next(iter(loader(1)))
    assert not torch.equal(a.views[0].images, b.views[0].images)


def test_without_masks(images: Images) -> None:
    with_labels = flat(batches(images)(0))
    without = flat(batches(images)(0, rides=()))
    for a, b in zip(with_labels, without, strict=True):
        assert b.void is None
        for x, y in zip(a.views, b.views, strict=True):
            assert y.labels is None
            assert torch.equal(x.images, y.images)  # the masks leave crops and colours alone
        assert a.label_order is not None
        assert b.label_order is not None
        assert torch.equal(a.label_order, b.label_order)
    bare = flat(Batches(images, SPEC, batch_size=8, seed=1)(0))
    assert all(view.labels is None for batch in bare for view in batch.views)


def test_masks_are_opened_anew_in_every_epoch(images: Images) -> None:
    loader = batches(images, workers=1)
    before = flat(loader(0))
    loader.open_masks = partial(ToyMasks, len(images), 100)
    for a, b in zip(before, flat(loader(0)), strict=True):
        assert a.views[0].labels is not None
        assert b.views[0].labels is not None
        assert torch.equal(a.views[0].labels + 100, b.views[0].labels)


def test_kept_workers_change_nothing(images: Images) -> None:
    """Another epoch, other masks, none, and the middle of an epoch, by workers that have done another before."""
    kept, alone = batches(images, workers=2), batches(images)
    list(kept(0, keep=True))
    before = {child.pid for child in multiprocessing.active_children()}
    assert len(before) == 2
    assert_same(flat(kept(1, keep=True)), flat(alone(1)))
    for loader in (kept, alone):
        loader.open_masks = partial(ToyMasks, len(images), 100)
    assert_same(flat(kept(1, keep=True)), flat(alone(1)))
    assert_same(flat(kept(3, 1, keep=True)), flat(alone(3, 1)))
    assert_same(flat(kept(2, rides=(), keep=True)), flat(alone(2, rides=())))
    assert {child.pid for child in multiprocessing.active_children()} == before
    assert_same(flat(kept(2)), flat(alone(2)))
    for child in multiprocessing.active_children():
        child.join(5)
    assert multiprocessing.active_children() == []


def test_a_consumer_that_takes_the_last_step_and_no_more_keeps_them(images: Images) -> None:
    """As the trainer does."""
    loader = batches(images, workers=1)
    steps = loader(0, keep=True)
    for _ in range(loader.steps_per_epoch):
        next(steps)
    del steps
    before = {child.pid for child in multiprocessing.active_children()}
    assert len(before) == 1
    list(loader(1, keep=True))
    assert {child.pid for child in multiprocessing.active_children()} == before
    next(loader(2, keep=True))  # left in the middle
    for child in multiprocessing.active_children():
        child.join(5)
    assert multiprocessing.active_children() == []


def test_the_global_generators_are_left_alone(images: Images) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    state = torch.get_rng_state()
    numbers = np.random.get_state()[1].tolist()
    list(batches(images, workers=1)(0))
    list(batches(images)(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numbers


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_fails_later_stops_by_name(tmp_path: Path, workers: int) -> None:
    folder = make_photos(tmp_path / "photos", 16)
    loader = batches(ScannedImages.from_scan(scan(list_images(folder))), workers)
    bad = loader.images.name(int(loader.order(0)[9]))  # in the second step
    (folder / bad).write_bytes((folder / bad).read_bytes()[:-40])
    steps = loader(0)
    next(steps)
    with pytest.raises(UnreadableImage) as caught:
        next(steps)
    assert caught.value.name == bad
    assert str(caught.value).startswith(f"{bad}: ")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_masks_arrive_as_they_are(images: Images, workers: int) -> None:
    loader = Batches(images, SPEC, batch_size=8, workers=workers, open_masks=broken_masks)
    with pytest.raises(InputError) as caught:
        list(loader(0))
    assert str(caught.value) == "masks/index: truncated. Make the masks anew."
    few = Batches(images, SPEC, batch_size=8, workers=workers, open_masks=partial(ToyMasks, COUNT - 1))
    with pytest.raises(InputError, match="26 images"):
        list(few(0))


def test_stopping_within_an_epoch_ends_the_workers(images: Images) -> None:
    steps = batches(images, workers=2)(0)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    for child in multiprocessing.active_children():
        child.join(5)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"batch_size": 28}, "28 is more than the 27 usable photos"),
        ({"batch_size": 9, "world": 2}, "no multiple of the 2 processes"),
        ({"batch_size": 8, "micro_batch": 3}, "3 does not divide the 8"),
        ({"batch_size": 8, "micro_batch": 8, "world": 2}, "8 does not divide the 4"),
    ],
)
def test_sizes_that_do_not_fit(images: Images, numbers: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Batches(images, SPEC, **numbers)
