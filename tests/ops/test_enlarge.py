from __future__ import annotations

import numpy as np
import pytest
import torch

from cyborgs.ops.enlarge import Enlarged, of_cells


def written_out(centroids: torch.Tensor, joined: torch.Tensor, height: int, width: int) -> np.ndarray:
    """Enlarge the features, bring them to unit length, multiply: float64 (K, H, W)."""
    x = joined.double().numpy()
    _, h, w = x.shape
    out = np.empty((len(x), height, width))
    for y in range(height):
        for z in range(width):
            cy = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
            cx = min(max((z + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(cy), int(cx)
            y1, x1, t, s = min(y0 + 1, h - 1), min(x0 + 1, w - 1), cy - y0, cx - x0
            top, low = (1 - s) * x[:, y0, x0] + s * x[:, y0, x1], (1 - s) * x[:, y1, x0] + s * x[:, y1, x1]
            out[:, y, z] = (1 - t) * top + t * low
    length = np.linalg.norm(out, axis=0)
    unit = np.where(length > 1e-12, out / np.maximum(length, 1e-12), 0)
    return np.einsum("kd,dhw->khw", centroids.double().numpy(), unit)


@pytest.mark.parametrize(
    ("grid", "size"),
    [((4, 6), (32, 48)), ((3, 5), (17, 29)), ((1, 4), (9, 30)), ((5, 1), (31, 8)), ((1, 1), (7, 6)), ((6, 7), (6, 7))],
)
@pytest.mark.parametrize("strip", [1, 200, 10**6])
def test_cosines_are_those_of_enlarged_features(grid, size, strip, monkeypatch):
    monkeypatch.setattr("cyborgs.ops.enlarge.STRIP", strip)
    generator = torch.Generator().manual_seed(0)
    joined = torch.randn(9, *grid, generator=generator)
    centroids = torch.nn.functional.normalize(torch.randn(4, 9, generator=generator), dim=1)
    expected = written_out(centroids, joined, *size)
    pixels = Enlarged(centroids, joined, *size)
    assert np.abs(pixels.cosines() - expected).max() < 2e-5
    some = np.array([3, 1])
    assert np.abs(pixels.cosines(some) - expected[some]).max() < 2e-5
    labels, cosine = pixels.labels()
    assert labels.dtype == np.uint8
    assert cosine.dtype == np.float32
    assert np.abs(cosine - expected.max(0)).max() < 2e-5
    gap = np.sort(expected, axis=0)
    sure = gap[-1] - gap[-2] > 1e-4
    assert np.array_equal(labels[sure], expected.argmax(0)[sure])


def test_opposite_and_zero_features():
    joined = torch.zeros(2, 1, 3)
    joined[:, 0, 0], joined[:, 0, 1] = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    pixels = Enlarged(torch.eye(2), joined, 3, 12)
    found = pixels.cosines()
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1
    assert found[:, :, -1].tolist() == [[0.0] * 3] * 2  # the third cell is zero
    assert pixels.labels()[0][0, -1] == 0


def test_scale_does_not_matter():
    joined = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    centroids = torch.nn.functional.normalize(torch.randn(3, 5), dim=1)
    one, large = (Enlarged(centroids, joined * scale, 20, 24).cosines() for scale in (1, 1e4))
    assert np.abs(one - large).max() < 1e-5


def test_cells():
    joined = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    joined[:, 0, 0] = 0
    centroids = torch.nn.functional.normalize(torch.randn(3, 5), dim=1)
    labels, cosine = of_cells(centroids, joined)
    unit = torch.nn.functional.normalize(joined.double(), dim=0).numpy()
    expected = np.einsum("kd,dhw->khw", centroids.double().numpy(), unit)
    assert np.array_equal(labels, expected.argmax(0))
    assert np.abs(cosine - expected.max(0)).max() < 1e-5
    assert (labels[0, 0], cosine[0, 0]) == (0, 0)


def test_memory_is_bounded_by_the_strip():
    joined, centroids = torch.randn(8, 60, 80), torch.nn.functional.normalize(torch.randn(64, 8), dim=1)
    sizes = [found.numel() for _, found in Enlarged(centroids, joined, 480, 640).strips()]
    assert max(sizes) <= 1_000_000
    assert sum(sizes) == 64 * 480 * 640
