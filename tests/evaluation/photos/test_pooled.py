"""Small things that protocols on frozen features share."""

from __future__ import annotations

import math

import numpy as np
import torch

from cyborgs.evaluation.photos.pooled import class_names, class_shares, collapsed
from cyborgs.ops.normalise import unit_rows


def test_shares_of_classes() -> None:
    found = class_shares(np.array([True, False, True]), np.array([0, 0, 2]), ("a", "b", "c"))
    assert found["a"] == 0.5
    assert math.isnan(found["b"])
    assert found["c"] == 1


def test_names() -> None:
    assert class_names((), 3) == ("0", "1", "2")
    assert class_names(("food", "wall", "food"), 3) == ("food (0)", "wall", "food (2)")


def test_collapse() -> None:
    rows = unit_rows(torch.ones(5, 8))
    assert collapsed(rows)
    assert not collapsed(rows[:1])
    assert not collapsed(unit_rows(rows + 1e-3 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0))))
