"""The suite that every mask source passes: inherit it, and give ``make()``."""

from __future__ import annotations

import numpy as np
import pytest

from cyborgs.masks.source import MaskSource


def random_images(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Blurred noise, uint8 (h, w, 3) for each size (h, w): neighbours resemble each other, as in photos."""
    draw = np.random.default_rng(seed)
    coarse = (draw.integers(0, 256, (-(-h // 8), -(-w // 8), 3)) for h, w in sizes)
    return [
        np.kron(c, np.ones((8, 8, 1), np.int64))[:h, :w].astype(np.uint8)
        for c, (h, w) in zip(coarse, sizes, strict=True)
    ]


class SourceContract:
    """What ``masks/source.py`` promises, whatever the source."""

    def make(self) -> MaskSource:
        raise NotImplementedError

    def test_name_void_and_needs(self):
        source = self.make()
        assert isinstance(source.name, str)
        assert source.void is None or 0 <= source.void <= 255
        assert isinstance(source.needs_images, bool)

    @pytest.mark.parametrize("count", [1, 15, 16, 17, 300, 1000])
    def test_groups_hold_each_image_once(self, count: int):
        groups = self.make().groups(count, seed=3, cycle=1)
        assert all(group.dtype == np.int64 and len(group) for group in groups)
        assert sorted(np.concatenate(groups).tolist()) == list(range(count))

    def test_groups_depend_on_nothing_else(self):
        first, again = (self.make().groups(100, seed=5, cycle=2) for _ in range(2))
        assert [g.tolist() for g in first] == [g.tolist() for g in again]

    def test_no_image_no_group(self):
        assert self.make().groups(0, seed=0, cycle=0) == []
        assert self.make().label([], 0, 0, 0) == []

    def test_a_map_for_each_image(self):
        source = self.make()
        images = random_images((64, 48), (40, 72), (64, 48))
        maps = source.label(images, seed=1, cycle=0, group=0)
        assert len(maps) == 3
        for label_map in maps:
            assert label_map.labels.dtype == np.uint8
            assert label_map.labels.ndim == 2
            assert label_map.void == source.void
            assert len(np.setdiff1d(label_map.labels, [-1 if source.void is None else source.void])) <= 255

    def test_labels_repeat(self):
        images = random_images((64, 48), (40, 72))
        first, again = (self.make().label(images, seed=1, cycle=2, group=3) for _ in range(2))
        assert all(np.array_equal(a.labels, b.labels) for a, b in zip(first, again, strict=True))

    def test_images_stay_as_they_are(self):
        source = self.make()
        images = random_images((64, 48), (300, 200))
        copies = [image.copy() for image in images]
        source.label(images, 0, 0, 0)
        assert all(np.array_equal(a, b) for a, b in zip(images, copies, strict=True))

    def test_prepared_images_give_the_same_maps(self):
        source = self.make()
        images = random_images((64, 48), (300, 200))
        prepared = [source.prepare(image) for image in images]
        assert all(np.array_equal(source.prepare(p), p) for p in prepared)
        for a, b in zip(source.label(images, 0, 0, 0), source.label(prepared, 0, 0, 0), strict=True):
            assert np.array_equal(a.labels, b.labels)

    def test_without_need_empty_arrays_do(self):
        source = self.make()
        if source.needs_images:
            pytest.skip("this source looks at the images")
        assert len(source.label([np.empty((0, 0, 3), np.uint8)] * 7, 0, 0, 0)) == 7
