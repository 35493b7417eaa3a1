from __future__ import annotations

import torch

from cyborgs.ops.normalise import at_least_float32, no_autocast, unit_rows


def test_lengths_are_one_and_zero_stays_zero() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1e-6, 0.0]], requires_grad=True)
    unit = unit_rows(x)
    assert torch.allclose(unit, torch.tensor([[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]]))
    (gradient,) = torch.autograd.grad(unit.sum(), x)
    assert gradient[1].tolist() == [0.0, 0.0]
    assert gradient.isfinite().all()


def test_gradient_is_that_of_the_formula() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(unit_rows, (x,))


def test_precision() -> None:
    assert at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with no_autocast(x):
            assert (x @ x).dtype == torch.float32


def test_nan_stays_visible() -> None:
    unit = unit_rows(torch.tensor([[float("nan"), 1.0], [3.0, 4.0]]))
    assert unit[0].isnan().all()
    assert unit[1].isfinite().all()
