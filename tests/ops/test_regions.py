from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cyborgs.ops import region_pool, sample_regions


def pool_slowly(features: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    pooled = np.zeros((*ids.shape, features.shape[1]))
    for b in range(ids.shape[0]):
        for r in range(ids.shape[1]):
            cells = [
                features[b, :, i, j]
                for i in range(labels.shape[1])
                for j in range(labels.shape[2])
                if int(labels[b, i, j]) == ids[b, r]
            ]
            if cells:
                pooled[b, r] = sum(cells) / len(cells)
    return pooled


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, n) for n in (3, 5, 6, 6, 7)]),
    st.sampled_from([(0, 3), (0, 256), (250, 256), (255, 256)]),
)
@settings(deadline=None, max_examples=80)
def test_equals_a_plain_loop(seed: int, shape: tuple[int, int, int, int, int], span: tuple[int, int]) -> None:
    b, c, h, w, r = shape
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(b, c, h, w))
    labels = rng.integers(*span, size=(b, h, w), dtype=np.uint8)
    ids = np.where(rng.random((b, r)) < 0.7, rng.integers(*span, size=(b, r)), -1)
    x = torch.tensor(features, requires_grad=True)
    pooled = region_pool(x, torch.tensor(labels), torch.tensor(ids))
    np.testing.assert_allclose(pooled.detach().numpy(), pool_slowly(features, labels, ids), atol=1e-9, rtol=0)

    weight = rng.normal(size=(b, r, c))
    (pooled * torch.tensor(weight)).sum().backward()
    gradient = np.zeros_like(features)
    for i in range(b):
        for k in range(r):
            member = labels[i].astype(int) == ids[i, k]
            gradient[i] += member * weight[i, k][:, None, None] / max(1, member.sum())
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), gradient, atol=1e-9, rtol=0)


def test_id_minus_one_is_not_label_255() -> None:
    pooled = region_pool(
        torch.ones(1, 2, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8), torch.tensor([[-1, 255]])
    )
    assert pooled.tolist() == [[[0, 0], [1, 1]]]


def test_all_256_labels_at_once() -> None:
    labels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    pooled = region_pool(torch.arange(256.0).view(1, 1, 16, 16), labels, torch.arange(256).view(1, -1))
    assert torch.equal(pooled.flatten(), torch.arange(256.0))


def test_reduced_precision_is_rounded_once() -> None:
    features = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels, ids = torch.zeros(2, 7, 7, dtype=torch.uint8), torch.zeros(2, 1, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = region_pool(features, labels, ids)
    assert torch.equal(pooled[:, 0], features.float().mean((2, 3)).bfloat16())


def test_shapes_that_do_not_fit() -> None:
    features, labels = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        region_pool(features, labels[:, :3], torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="ids must be"):
        region_pool(features, labels, torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="do not fit"):
        sample_regions(labels, torch.zeros(2, 16, dtype=torch.uint8), 4)
    with pytest.raises(ValueError, match="count"):
        sample_regions(labels, torch.zeros(2, 256, dtype=torch.uint8), 0)


def orders(rng: np.random.Generator, b: int) -> np.ndarray:
    return np.stack([rng.permutation(256) for _ in range(b)]).astype(np.uint8)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(1, 300),
    st.sampled_from([2, 20, 256]),
    st.sampled_from([None, 0, 1, 255]),
)
@settings(deadline=None, max_examples=80)
def test_sampling_equals_a_plain_loop(seed: int, b: int, g: int, count: int, top: int, void: int | None) -> None:
    rng = np.random.default_rng(seed)
    labels, order = rng.integers(0, top, size=(b, g, g), dtype=np.uint8), orders(rng, b)
    ids = sample_regions(torch.tensor(labels), torch.tensor(order), count, void)
    assert ids.shape == (b, count)
    assert ids.dtype == torch.int64
    for i in range(b):
        expected = [int(m) for m in order[i] if m in labels[i] and int(m) != void][:count]
        assert ids[i].tolist() == expected + [-1] * (count - len(expected))


def test_views_keep_the_labels_they_share() -> None:
    rng = np.random.default_rng(0)
    order = torch.tensor(orders(rng, 1))
    views = [torch.tensor(rng.integers(0, 40, size=(1, 7, 7), dtype=np.uint8)) for _ in range(2)]
    ids = [set(sample_regions(v, order, 16)[0].tolist()) for v in views]
    apart = [set(sample_regions(v, torch.tensor(orders(rng, 1)), 16)[0].tolist()) for v in views]
    assert len(ids[0] & ids[1]) > len(apart[0] & apart[1])
