from __future__ import annotations

import pytest
import torch

from cyborgs.losses import byol_loss


def vectors(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 8, generator=generator, dtype=dtype) for _ in range(4)]


def test_equals_lightly() -> None:
    from lightly.loss import NegativeCosineSimilarity

    p1, p2, t1, t2 = vectors(torch.float64)
    p1, p2 = p1.requires_grad_(), p2.requires_grad_()
    similarity = NegativeCosineSimilarity()
    ours, theirs = byol_loss(p1, p2, t1, t2), 4 + 2 * (similarity(p1, t2) + similarity(p2, t1))
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    for a, b in zip(torch.autograd.grad(ours, [p1, p2]), torch.autograd.grad(theirs, [p1, p2]), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_range() -> None:
    x = torch.randn(4, 8)
    assert byol_loss(x, x, 3 * x, 2 * x).item() == pytest.approx(0, abs=1e-5)
    assert byol_loss(x, x, -x, -x).item() == pytest.approx(8, abs=1e-5)


def test_zero_vectors_autocast_targets() -> None:
    p1, p2, t1, t2 = vectors(torch.float32)
    p1[0] = 0
    p1, t2 = p1.requires_grad_(), t2.requires_grad_()
    expected = byol_loss(p1, p2, t1, t2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = byol_loss(p1, p2, t1, t2)
    assert loss.item() == expected.item()
    loss.backward()
    assert t2.grad is None
    assert p1.grad is not None
    assert p1.grad.isfinite().all()
    assert not p1.grad[0].any()
    with pytest.raises(ValueError, match="shapes differ"):
        byol_loss(p1, p2, t1, t2[:3])
