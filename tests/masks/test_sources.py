from __future__ import annotations

import numpy as np
import pytest

from cyborgs.masks.grid import Grid
from cyborgs.masks.source import MaskSource, chunks
from cyborgs.masks.whole import Whole
from tests.masks.contract import SourceContract, random_images


class TestGrid(SourceContract):
    def make(self) -> MaskSource:
        return Grid(5)

    @pytest.mark.parametrize("n", [1, 5, 15])
    def test_cells_cover_their_share(self, n: int):
        (label_map,) = Grid(n).label(random_images((30, 60)), 0, 0, 0)
        assert label_map.labels.tolist() == [[row * n + column for column in range(n)] for row in range(n)]

    @pytest.mark.parametrize("n", [0, 16])
    def test_more_labels_than_a_map_holds(self, n: int):
        with pytest.raises(ValueError, match=f"1 to 15 cells a side, got {n}"):
            Grid(n)


class TestWhole(SourceContract):
    def make(self) -> MaskSource:
        return Whole()

    def test_one_cell(self):
        maps = Whole().label(random_images((30, 60), (8, 8)), 0, 0, 0)
        assert [m.labels.tolist() for m in maps] == [[[0]], [[0]]]


def test_chunks():
    assert [c.tolist() for c in chunks(5, 2)] == [[0, 1], [2, 3], [4]]
    assert [len(c) for c in chunks(600)] == [256, 256, 88]
    assert chunks(5, 2)[0].dtype == np.int64
