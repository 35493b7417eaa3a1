from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cyborgs.ops import bounds, euclidean_kmeans, spherical_kmeans
from cyborgs.ops.bounds import Bounds


def decaying(n: int, d: int, seed: int, dtype: torch.dtype, decay: float = 1.0) -> Tensor:
    """Points with a mean, and a spectrum that falls as a power, as feature maps have."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** -decay
    x = (torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.5) * scale
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    return (x @ turn).to(dtype)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SMALLEST", (1, 1))
    monkeypatch.setattr(bounds, "LARGEST_TAIL", 2.0)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.5])
def test_what_is_settled_stays(dtype: torch.dtype, decay: float) -> None:
    x = decaying(2000, 64, 1, dtype, decay)
    x = x / x.norm(dim=1, keepdim=True)
    centroids = x[:30] / 2 + x[30:60] / 2
    for bias in (torch.zeros(30, dtype=dtype), centroids.square().sum(1) / -2):
        found = Bounds.of(x, 30)
        assert found is not None
        full = x @ centroids.T + bias
        for labels in (full.argmax(1), torch.arange(2000) % 30):
            rows, scores = found.unsettled(x, centroids, bias, labels)
            assert torch.allclose(scores, full.gather(1, labels[:, None])[:, 0], atol=1e-6)
            wrong = torch.nonzero(full.argmax(1) != labels).squeeze(1)
            assert set(wrong.tolist()) <= set(rows.tolist())
    if decay == 1.5:  # and something is settled where the spectrum decays
        rows, _ = found.unsettled(x, centroids, bias, full.argmax(1))
        assert len(rows) < 1000


@given(st.integers(0, 2**31), st.integers(60, 400), st.integers(2, 20), st.sampled_from([0.0, 1.0, 2.0]))
@settings(deadline=None, max_examples=25)
def test_k_means_is_the_same_with_and_without(seed: int, n: int, k: int, decay: float) -> None:
    x = decaying(n, 48, seed, torch.float64, decay)
    ways: list[Callable[..., tuple[Tensor, Tensor]]] = [spherical_kmeans, euclidean_kmeans]
    for cluster in ways:
        plain = cluster(x, k, seed=seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bounds, "SMALLEST", (1, 1))
            patch.setattr(bounds, "LARGEST_TAIL", 2.0)
            short = cluster(x, k, seed=seed)
        assert torch.equal(plain[0], short[0])
        assert torch.allclose(plain[1], short[1], atol=1e-10)


def test_only_where_it_pays() -> None:
    x = decaying(bounds.SMALLEST[0], 64, 0, torch.float32, 2.0)
    assert Bounds.of(x, 64) is not None
    assert Bounds.of(x[1:], 64) is None
    assert Bounds.of(x, 63) is None
    assert Bounds.of(torch.randn(bounds.SMALLEST[0], 64), 64) is None
    assert Bounds.of(x[:, :8].contiguous(), 64) is None
