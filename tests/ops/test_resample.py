from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cyborgs.ops import pooling_matrix, resample

sizes = st.integers(1, 40)


@given(sizes, sizes)
@settings(deadline=None, max_examples=60)
def test_rows_sum_to_one(n_in: int, n_out: int) -> None:
    matrix = pooling_matrix(n_in, n_out, dtype=torch.float64)
    assert matrix.shape == (n_out, n_in)
    assert (matrix >= 0).all()
    assert torch.allclose(matrix.sum(1), torch.ones(n_out, dtype=torch.float64))
    if n_out <= n_in:  # area averages keep the mean
        assert torch.allclose(matrix.mean(0), torch.full((n_in,), 1 / n_in, dtype=torch.float64))


@given(st.integers(1, 24), st.integers(1, 24))
@settings(deadline=None, max_examples=40)
def test_fractional_overlaps_are_those_of_repeated_cells(n_in: int, n_out: int) -> None:
    if n_out > n_in:
        n_in, n_out = n_out, n_in
    x = torch.randn(n_in, dtype=torch.float64, generator=torch.Generator().manual_seed(n_in))
    fine = x.repeat_interleave(n_out).view(n_out, n_in).mean(1)
    assert torch.allclose(pooling_matrix(n_in, n_out, dtype=torch.float64) @ x, fine)


@pytest.mark.parametrize(("n_in", "n_out"), [(7, 14), (6, 7), (1, 5), (8, 29)])
def test_enlarging_is_bilinear(n_in: int, n_out: int) -> None:
    maps = torch.randn(2, 3, n_in, n_in, dtype=torch.float64)
    expected = F.interpolate(maps, size=(n_out, n_out), mode="bilinear", align_corners=False)
    assert torch.allclose(resample(maps, n_out), expected, atol=1e-12)


def test_ways() -> None:
    maps = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    assert resample(maps, (12, 8)) is maps
    assert torch.allclose(resample(maps, 4), F.adaptive_avg_pool2d(maps, 4))
    a, b = pooling_matrix(12, 5, dtype=torch.float64), pooling_matrix(8, 10, dtype=torch.float64)
    assert torch.allclose(resample(maps, (5, 10)), torch.einsum("ih,bchw,jw->bcij", a, maps, b))


def test_reduced_precision_is_rounded_once() -> None:
    maps = torch.randn(1, 2, 7, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resample(maps, 5), resample(maps.float(), 5).bfloat16())


def test_a_matrix_made_in_inference_mode_can_be_trained_through() -> None:
    with torch.inference_mode():
        pooling_matrix(31, 17)
    maps = torch.randn(1, 1, 31, 31, requires_grad=True)
    resample(maps, 17).square().sum().backward()
    assert maps.grad is not None


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        pooling_matrix(0, 3)
    with pytest.raises(ValueError, match="at least 1"):
        resample(torch.zeros(1, 1, 4, 4), 0)
    with pytest.raises(ValueError, match="B, C, h, w"):
        resample(torch.zeros(4, 4), 2)
