"""Effective rank and standard deviation against plain float64 numpy, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cyborgs.ops import effective_rank, unit_deviation


def rank_oracle(x: np.ndarray) -> float:
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def deviation_oracle(x: np.ndarray) -> float:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return float(unit.std(axis=0).mean() * np.sqrt(x.shape[1]))


@pytest.mark.parametrize("shape", [(200, 16), (10, 40), (2, 5), (50, 50)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_they_are_what_numpy_computes(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * rng.exponential(size=shape[1]) + rng.normal(size=shape[1])
    rows = torch.from_numpy(x).float()
    assert float(effective_rank(rows)) == pytest.approx(rank_oracle(x), rel=1e-4)
    assert float(unit_deviation(rows)) == pytest.approx(deviation_oracle(x), rel=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_k_points_of_equal_number_have_rank_k_minus_1(k: int) -> None:
    rows = torch.eye(16)[:k].repeat(20, 1)
    assert float(effective_rank(rows)) == pytest.approx(max(1, k - 1), rel=1e-5)


def test_even_directions_have_full_rank_and_deviation_1() -> None:
    rows = torch.cat([torch.eye(12), -torch.eye(12)])
    assert float(effective_rank(rows)) == pytest.approx(12, rel=1e-5)
    assert float(unit_deviation(rows)) == pytest.approx(1, rel=1e-5)
    assert float(unit_deviation(5 * rows)) == pytest.approx(1, rel=1e-5)  # length does not count


@pytest.mark.parametrize("rows", [torch.ones(9, 4), torch.zeros(9, 4), torch.full((9, 4), 1 / 3)])
def test_a_point_has_rank_1_and_deviation_0(rows: torch.Tensor) -> None:
    assert float(effective_rank(rows)) == 1
    assert float(unit_deviation(rows)) == pytest.approx(0, abs=1e-6)


def test_a_line_has_rank_1() -> None:
    rows = torch.linspace(0, 1, 30)[:, None] * torch.tensor([[1.0, 2.0, -1.0]]) + 5
    assert float(effective_rank(rows)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_say_nothing(count: int) -> None:
    assert math.isnan(effective_rank(torch.ones(count, 4)))
    assert math.isnan(unit_deviation(torch.ones(count, 4)))


def test_numbers_that_are_not_finite_show() -> None:
    rows = torch.ones(4, 3)
    rows[1, 2] = math.nan
    assert math.isnan(effective_rank(rows))
    assert math.isnan(unit_deviation(rows))


def test_low_precision_is_computed_in_float32() -> None:
    x = np.random.default_rng(0).normal(size=(64, 8)) + 30
    rows = torch.from_numpy(x).bfloat16()
    assert effective_rank(rows).dtype == torch.float32
    assert float(effective_rank(rows)) == pytest.approx(rank_oracle(rows.double().numpy()), rel=1e-3)
