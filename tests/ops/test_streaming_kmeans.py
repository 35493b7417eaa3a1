from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cyborgs.errors import NotFiniteError
from cyborgs.ops.kmeans import spherical_kmeans
from cyborgs.ops.streaming_kmeans import StreamingKMeans, mean_cosine


def blobs(n: int, d: int = 16, k: int = 6, seed: int = 0, noise: float = 0.1) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(k, d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres[draw.integers(0, k, n)] + noise * draw.normal(size=(n, d))
    return torch.from_numpy(rows.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    capacity=st.integers(1, 60),
    seed=st.integers(0, 2**31),
)
def test_the_sample_does_not_depend_on_the_portions(sizes: list[int], capacity: int, seed: int) -> None:
    x = torch.arange(sum(sizes) * 2, dtype=torch.float32).reshape(-1, 2)
    one, several = (StreamingKMeans(2, seed=seed, rows=capacity) for _ in range(2))
    one.feed(x)
    for part in torch.split(x, sizes):
        several.feed(part)
    assert one.seen == several.seen == len(x)
    assert len(one) == len(several) == min(capacity, len(x))
    kept = {tuple(row) for row in one.sample().tolist()}
    assert kept == {tuple(row) for row in several.sample().tolist()}
    assert len(kept) == len(one)  # without replacement
    assert kept <= {tuple(row) for row in x.tolist()}
    if capacity >= len(x):
        assert torch.equal(one.sample(), x)


def test_the_sample_is_uniform_over_the_stream() -> None:
    often = np.zeros(50)
    for seed in range(800):
        stream = StreamingKMeans(1, seed=seed, rows=10)
        for part in torch.arange(50.0)[:, None].split(7):
            stream.feed(part)
        often[stream.sample().int().flatten().numpy()] += 1
    # 160 expected each; 5 deviations of a binomial
    assert np.abs(often - 160).max() < 5 * np.sqrt(800 * 0.2 * 0.8)


def test_memory_is_bounded_by_rows_and_by_bytes() -> None:
    stream = StreamingKMeans(8, sample_bytes=4 * 8 * 100)
    assert stream.capacity == 100
    for _ in range(30):
        stream.feed(torch.randn(77, 8))
    assert stream.seen == 30 * 77
    assert stream.sample().untyped_storage().nbytes() <= 4 * 8 * 100


def test_small_sets_take_what_they_need() -> None:
    stream = StreamingKMeans(4)
    stream.feed(torch.randn(10, 4))
    assert stream.sample().untyped_storage().nbytes() < 1000


def test_everything_fits_then_it_is_plain_kmeans() -> None:
    x = blobs(500)
    stream = StreamingKMeans(16, seed=5)
    for part in x.split(64):
        stream.feed(part)
    centroids, cosine = stream.centroids(6, iterations=20)
    labels, expected = spherical_kmeans(x, 6, iterations=20, seed=5)
    assert torch.equal(centroids, expected)
    unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    assert cosine == pytest.approx((unit * expected[labels].double().numpy()).sum(1).mean(), abs=1e-6)


def test_the_objective_of_a_sample_is_near_that_of_all_rows() -> None:
    x = blobs(20_000, d=24, k=12, noise=0.3)
    stream = StreamingKMeans(24, seed=1, rows=2_000)
    for part in x.split(1_111):
        stream.feed(part)
    _, everything = spherical_kmeans(x, 10, iterations=50, seed=1)
    lost, best = (1 - mean_cosine(x, c) for c in (stream.centroids(10)[0], everything))
    assert lost < 1.05 * best


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 60), k=st.integers(1, 12), distinct=st.integers(1, 5), seed=st.integers(0, 1000))
def test_centroids_are_of_unit_length_whatever_the_rows(n: int, k: int, distinct: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(distinct, 5))[draw.integers(0, distinct, n)]
    stream = StreamingKMeans(5, seed=seed, rows=40)
    stream.feed(torch.from_numpy(rows))
    if k > len(stream):
        with pytest.raises(ValueError, match=f"need 1 <= k <= {len(stream)}"):
            stream.centroids(k)
        return
    centroids, cosine = stream.centroids(k)
    again, _ = stream.centroids(k)
    assert torch.equal(centroids, again)
    assert torch.allclose(centroids.norm(dim=1), torch.ones(k), atol=1e-5)
    # Each distinct direction has a centroid of its own as far as there are centroids: none ran empty.
    if k >= len({tuple(np.round(r, 6)) for r in stream.sample().numpy()}):
        assert cosine == pytest.approx(1, abs=1e-5)


def test_seeds_and_order() -> None:
    x = blobs(400)
    first = StreamingKMeans(16, seed=0, rows=50)
    other = StreamingKMeans(16, seed=1, rows=50)
    for stream in (first, other):
        stream.feed(x)
    assert not torch.equal(first.sample(), other.sample())
    assert not torch.equal(first.centroids(4)[0], first.centroids(4, start=9)[0])


def test_mean_cosine_is_the_definition() -> None:
    x, c = torch.randn(300, 7), torch.nn.functional.normalize(torch.randn(5, 7), dim=1)
    x[3] = 0
    unit = x.double().numpy() / np.maximum(np.linalg.norm(x.double().numpy(), axis=1, keepdims=True), 1e-12)
    cosines = unit @ c.double().numpy().T
    assert mean_cosine(x, c) == pytest.approx(np.append(np.delete(cosines.max(1), 3), 0).mean(), abs=1e-6)
    labels = torch.arange(300) % 5
    assert mean_cosine(x, c, labels) == pytest.approx(cosines[np.arange(300), labels].mean(), abs=1e-6)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="width must be at least 1"):
        StreamingKMeans(0)
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        StreamingKMeans(3, rows=0)
    stream = StreamingKMeans(3)
    with pytest.raises(ValueError, match=r"rows must be \(n, 3\) floating, got torch\.float32 \(2, 4\)"):
        stream.feed(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        stream.feed(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(NotFiniteError, match="NaN or infinity"):
        stream.feed(torch.tensor([[0.0, torch.inf, 1.0]]))
    with pytest.raises(ValueError, match="need 1 <= k <= 0"):
        stream.centroids(1)
