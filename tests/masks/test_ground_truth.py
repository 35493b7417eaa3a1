"""Annotations as masks: which photo a map is of, void, too many regions, photos that have none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from cyborgs.data.images import ScannedImages
from cyborgs.errors import UserError
from cyborgs.masks.ground_truth import VOID, GroundTruth, as_labels, digest_of
from cyborgs.masks.source import MaskSource
from tests.masks.contract import SourceContract


@dataclass(frozen=True)
class FakeTruth:
    """Photo i has regions i % 3 + 1 in stripes, 4 x 6 cells; some photos have none."""

    missing: tuple[int, ...] = ()
    special: Mapping[int, np.ndarray] = field(default_factory=dict)
    kind: str = "fake"
    class_names: tuple[str, ...] = ()

    def regions(self, i: int) -> np.ndarray:
        if i in self.missing:
            raise AssertionError("this photo has no annotation, and that was said")
        if i in self.special:
            return self.special[i]
        return np.arange(24, dtype=np.int32).reshape(4, 6) % (i % 3 + 1)

    def classes(self, i: int) -> np.ndarray:
        return self.regions(i)

    def annotators(self, i: int) -> list[np.ndarray]:
        return [self.regions(i)]


class TestGroundTruth(SourceContract):
    def make(self) -> MaskSource:
        return GroundTruth(FakeTruth(missing=(1,)), 2000)


def test_a_group_knows_its_photos():
    truth = FakeTruth(missing=(256, 600))
    source = GroundTruth(truth, 700)
    blind = np.empty((0, 0, 3), np.uint8)
    for number, group in enumerate(source.groups(700, 0, 0)):
        for i, label_map in zip(group, source.label([blind] * len(group), 0, 0, number), strict=True):
            assert label_map.void == VOID
            if i in (256, 600):
                assert label_map.labels.tolist() == [[VOID]]
            else:
                assert label_map.labels.tolist() == truth.regions(int(i)).tolist()


def test_void_and_the_order_of_numbers():
    regions = np.array([[-1, 7, 7], [3, -1, 0]], np.int32)
    assert as_labels(regions)[0].tolist() == [[VOID, 2, 2], [1, VOID, 0]]
    assert as_labels(np.full((2, 2), -1, np.int32))[0].tolist() == [[VOID, VOID]] * 2
    assert as_labels(np.array([[-5, 0]], np.int32))[0].tolist() == [[VOID, 0]]


def test_255_regions_stay():
    regions = np.arange(-1, 255, dtype=np.int32).reshape(16, 16)
    assert as_labels(regions)[0].tolist() == np.where(regions < 0, VOID, regions).tolist()


def test_of_more_than_255_regions_the_largest_stay():
    draw = np.random.default_rng(0)
    regions = draw.integers(-1, 400, (60, 70)).astype(np.int32)
    labels, left_out = as_labels(regions)
    assert left_out == 145
    assert as_labels(regions.clip(-1, 254))[1] == 0
    sizes = sorted(((int((regions == r).sum()), -r) for r in range(400)), reverse=True)
    kept = sorted(-r for _, r in sizes[:255])
    for number, region in enumerate(kept):
        assert (labels[regions == region] == number).all()
    assert (labels[~np.isin(regions, kept)] == VOID).all()


def test_no_photo_with_an_annotation():
    with pytest.raises(UserError, match=r"masks\.truth: none of the 3 photos has an annotation \(fake\)"):
        GroundTruth(FakeTruth(missing=(0, 1, 2)), 3)


@pytest.mark.parametrize(("size", "fits"), [((40, 60), True), ((41, 60), True), ((60, 40), False), ((40, 70), False)])
def test_an_annotation_of_another_shape(size: tuple[int, int], fits: bool):
    source = GroundTruth(FakeTruth(), 1, ScannedImages("photos", [("a/b.jpg", *size, 0)]))
    if fits:
        assert source.map_of(0).labels.shape == (4, 6)
    else:
        with pytest.raises(UserError, match=f"annotation of a/b.jpg is 6 x 4 .* {size[1]} x {size[0]}"):
            source.label([np.empty((0, 0, 3), np.uint8)], 0, 0, 0)


def test_digest_changes_with_the_annotations(tmp_path: Path):
    file, folder = tmp_path / "a.json", tmp_path / "labels"
    file.write_text("{}")
    seen = {digest_of(f"coco:{file}"), digest_of(f"voc:{file}")}
    os.utime(file, (1, 1))
    assert digest_of(f"coco:{file}") in seen  # of a file the bytes count
    file.write_text("[]")
    seen.add(digest_of(f"coco:{file}"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(b"1")
    seen.add(digest_of(f"coco:{file}"))  # panoptic annotations: the PNGs beside it
    (folder / "deep").mkdir(parents=True)
    seen.add(digest_of(f"folder:{folder}"))
    (folder / "deep" / "x.png").write_bytes(b"1")
    os.utime(folder / "deep" / "x.png", (1, 1))
    seen.add(digest_of(f"folder:{folder}"))
    (folder / "deep" / "x.png").write_bytes(b"22")
    os.utime(folder / "deep" / "x.png", (1, 1))
    seen.add(digest_of(f"folder:{folder}"))
    os.utime(folder / "deep" / "x.png", (2, 2))
    seen.add(digest_of(f"folder:{folder}"))
    assert len(seen) == 8
    assert digest_of(str(folder)) == digest_of(f"folder:{folder}")  # a path alone is guessed
    assert digest_of(f"folder:{folder}") in seen
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert digest_of(f"folder:{moved}") in seen  # where they lie is no matter


def test_a_map_that_is_void_gives_no_region(tmp_path: Path):
    """From the source through store, views and batch to the regions that are sampled, and the loss of such a batch."""
    from cyborgs.data.listing import list_images
    from cyborgs.data.scan import scan
    from cyborgs.masks.generate import generate
    from cyborgs.masks.store import MaskStore
    from cyborgs.ops.regions import sample_regions
    from cyborgs.runs.build import build_method
    from cyborgs.structures import StepSeed
    from cyborgs.views.loader import Batches
    from tests.conftest import make_photos, tiny_recipe

    images = ScannedImages.from_scan(scan(list_images(make_photos(tmp_path / "photos", 8))))
    crowd = np.full((4, 6), -1, np.int32)
    source = GroundTruth(FakeTruth(missing=(0, 1, 2, 3), special={4: crowd, 5: crowd, 6: crowd}), 8)
    assert generate(source, images, tmp_path, 0, seed=0, cycle=0, manifest={})
    recipe = tiny_recipe()
    batches = Batches(images, recipe.views, batch_size=8, open_masks=lambda: MaskStore(tmp_path))
    ((batch,),) = list(batches(0))
    assert batch.void == VOID
    empty = torch.tensor([i != 7 for i in batch.indices.tolist()])
    for view in batch.views:
        assert view.labels is not None
        assert batch.label_order is not None
        valid = sample_regions(view.labels, batch.label_order, 16, batch.void) >= 0
        assert not valid[empty].any()
        assert valid[~empty].any()
    method = build_method(recipe)
    plan = next(plan for plan in map(recipe.method.plan, range(6)) if set(plan.losses) == {"contrast"})
    output = method.training_step(batch, plan, StepSeed(0, plan.epoch, 0))
    assert torch.isfinite(output.losses["contrast"])
    # Not one region in the whole batch.
    for view in batch.views:
        assert view.labels is not None
        view.labels.fill_(VOID)
    output = method.training_step(batch, plan, StepSeed(0, plan.epoch, 0))
    assert output.losses["contrast"].item() == 0
    output.losses["contrast"].backward()
