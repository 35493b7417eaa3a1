"""Alignment and uniformity beside loops over pairs, and at their ends."""

from __future__ import annotations

import math

import pytest
import torch

from cyborgs.metrics import spread
from cyborgs.metrics.spread import alignment, uniformity
from cyborgs.ops.normalise import unit_rows


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return unit_rows(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("room", [1, 1 << 20])
def test_uniformity_as_a_loop(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "ROOM", room)
    x = unit_rows(rows(17).double())
    pairs = [math.exp(-2 * float((x[i] - x[j]).square().sum())) for i in range(17) for j in range(i)]
    assert uniformity(rows(17)) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-9)


def test_alignment_as_a_loop() -> None:
    a, b = rows(9), rows(9, 1)
    assert alignment(a, b) == pytest.approx(sum(float((a[i] - b[i]).square().sum()) for i in range(9)) / 9, rel=1e-5)


def test_ends() -> None:
    point = unit_rows(torch.ones(6, 4))
    assert uniformity(point) == pytest.approx(0, abs=1e-6)
    assert alignment(point, -point) == pytest.approx(4)
    assert math.isnan(uniformity(point[:1]))
    assert uniformity(torch.eye(6)) == pytest.approx(-4)
    with pytest.raises(ValueError, match="differ in shape"):
        alignment(point, point[:2])
