"""The dense CRF against mean field written out, and what it must leave alone."""

from __future__ import annotations

import sys
import tracemalloc
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from cyborgs.errors import UserError
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.masks.config import CrfConfig, MaskConfig
from cyborgs.masks.crf import LEAST, _costs, _nearest, marginals, refine
from cyborgs.masks.majority import majority
from cyborgs.ops.kmeans import spherical_kmeans
from cyborgs.runs.build import build_method, build_source
from cyborgs.seeds import derive
from tests.conftest import tiny_recipe
from tests.masks.contract import SourceContract, random_images

CONFIG = CrfConfig(enabled=True)

needs_crf = pytest.mark.skipif(find_spec("pydensecrf") is None, reason="the extra crf is not installed")


def mean_field(image: np.ndarray, unary: np.ndarray, c: CrfConfig) -> np.ndarray:
    """Exact, in float64: every pair of pixels. Probabilities (K, H * W)."""
    k, height, width = unary.shape
    y, x = np.mgrid[:height, :width]
    place = np.stack([y.ravel(), x.ravel()], 1).astype(np.float64)
    colour = image.reshape(-1, 3).astype(np.float64)

    def squares(v: np.ndarray) -> np.ndarray:
        return ((v[:, None] - v[None]) ** 2).sum(2)

    kernels = [
        (c.smoothness, np.exp(-squares(place / c.smoothness_position) / 2)),
        (
            c.appearance,
            np.exp(-squares(place / c.appearance_position) / 2 - squares(colour / c.appearance_colour) / 2),
        ),
    ]
    costs = unary.reshape(k, -1).astype(np.float64)

    def softmax(energy: np.ndarray) -> np.ndarray:
        shifted = np.exp(energy - energy.max(0))
        return shifted / shifted.sum(0)

    q = softmax(-costs)
    for _ in range(c.iterations):
        message = np.zeros_like(costs)
        for weight, kernel in kernels:
            length = 1 / np.sqrt(kernel.sum(1))
            message += weight * ((q * length) @ kernel) * length
        q = softmax(-costs + message)
    return q


def scene(seed: int, size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Two coloured halves with a slanted border and noise, and noisy cosines of three prototypes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    right = x + 0.3 * y > size * 0.6
    image = np.where(right[..., None], (200, 60, 40), (40, 90, 180)) + rng.normal(0, 2, (size, size, 3))
    cosines = np.stack([~right * 0.3, right * 0.3, np.full(right.shape, 0.1)]) + rng.normal(0, 0.12, (3, size, size))
    return image.clip(0, 255).astype(np.uint8), cosines.clip(-1, 1).astype(np.float32)


def unary_of(cosines: np.ndarray, kappa: float) -> np.ndarray:
    logits = kappa * cosines.astype(np.float64)
    return np.minimum(np.log(np.exp(logits).sum(0)) - logits, -np.log(LEAST))


@needs_crf
@pytest.mark.parametrize("seed", range(4))
def test_near_exact_mean_field(seed: int) -> None:
    """The library filters on a lattice: labels agree, where the exact one is not in doubt, nearly everywhere."""
    image, cosines = scene(seed)
    exact = mean_field(image, unary_of(cosines, 10.0), CONFIG)
    found = refine(image, cosines, CONFIG).ravel()
    assert (found == exact.argmax(0)).mean() >= 0.97
    ordered = np.sort(exact, 0)
    sure = ordered[-1] - ordered[-2] > 0.5
    assert sure.mean() > 0.8
    assert (found == exact.argmax(0))[sure].mean() >= 0.99
    near = marginals(image, unary_of(cosines, 10.0), CONFIG).reshape(-1, 3).T
    assert near.sum(0) == pytest.approx(1, abs=1e-5)
    assert np.abs(near - exact).mean() < 0.02


@needs_crf
def test_it_mends_noise() -> None:
    image, cosines = scene(9)
    truth = (np.mgrid[:24, :24][1] + 0.3 * np.mgrid[:24, :24][0] > 24 * 0.6).astype(np.uint8)
    before = (cosines.argmax(0) == truth).mean()
    after = (refine(image, cosines, CONFIG) == truth).mean()
    assert before < 0.97 < after


@needs_crf
@pytest.mark.parametrize("seed", range(3))
def test_without_kernels_marginals_are_those_of_the_costs(seed: int) -> None:
    image, _ = scene(seed, size=9)
    costs = np.random.default_rng(seed).uniform(0, 6, (4, 9, 9))
    found = marginals(image, costs, replace(CONFIG, smoothness=0.0, appearance=0.0))
    expected = np.exp(-costs) / np.exp(-costs).sum(0)
    np.testing.assert_allclose(found.transpose(2, 0, 1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_costs_and_nearest_as_written_out(kind: type) -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (7, 5, 6)).astype(kind)
    cosines[4] = cosines[2]  # a tie everywhere
    assert np.array_equal(_nearest(cosines), cosines.argmax(0))
    chosen = np.array([0, 2, 6], np.uint8)
    costs = _costs(cosines, chosen, 30.0)
    assert costs.dtype == np.float32
    np.testing.assert_allclose(costs, unary_of(cosines[chosen], 30.0), rtol=1e-4, atol=1e-5)
    assert costs.max() == pytest.approx(-np.log(LEAST), rel=1e-6)  # some are clipped


def test_costs_take_the_memory_of_one_array() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (64, 64, 80)).astype(np.float32)
    tracemalloc.start()
    _nearest(cosines)
    _costs(cosines, np.arange(64, dtype=np.uint8), 10.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * cosines.nbytes


@needs_crf
def test_no_kernel_leaves_the_nearest_label() -> None:
    image, cosines = scene(1)
    found = refine(image, cosines, replace(CONFIG, smoothness=0.0, appearance=0.0))
    assert np.array_equal(found, cosines.argmax(0))
    assert found.dtype == np.uint8


@needs_crf
def test_kappa_zero_like_cosines_change_with_kappa() -> None:
    image, cosines = scene(2)
    weak, strong = (refine(image, cosines, replace(CONFIG, kappa=k)) for k in (2.0, 40.0))
    assert (strong == cosines.argmax(0)).mean() > (weak == cosines.argmax(0)).mean()


def test_a_constant_picture_and_map_stay() -> None:
    image = np.full((20, 30, 3), 77, np.uint8)
    cosines = np.stack([np.full((20, 30), 0.2), np.full((20, 30), 0.9)]).astype(np.float32)
    assert (refine(image, cosines, CONFIG) == 1).all()


@needs_crf
def test_labels_keep_their_numbers() -> None:
    image, cosines = scene(3)
    many = np.full((256, 24, 24), -1, np.float32)
    many[[0, 200, 255]] = cosines
    few = refine(image, cosines, CONFIG)
    assert np.array_equal(refine(image, many, CONFIG), np.array([0, 200, 255], np.uint8)[few])


@needs_crf
def test_grey_float64_and_strided_input() -> None:
    image, cosines = scene(5)
    grey = image[..., 0]
    assert np.array_equal(refine(grey, cosines, CONFIG), refine(np.repeat(grey[..., None], 3, 2), cosines, CONFIG))
    wide = np.repeat(cosines, 2, 2)[:, :, ::2].astype(np.float64)
    assert np.array_equal(refine(image[:, :, ::-1][:, :, ::-1], wide, CONFIG), refine(image, cosines, CONFIG))


def test_sizes_that_differ() -> None:
    image, cosines = scene(6)
    with pytest.raises(ValueError, match=r"\(24, 24\) pixels .* cosines are \(3, 24, 23\)"):
        refine(image, cosines[:, :, 1:], CONFIG)


def test_the_extra_is_named_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    recipe = tiny_recipe(masks=MaskConfig(crf=CONFIG))
    with pytest.raises(UserError, match=r"pip install 'cyborgs\[crf\]'.*C\+\+ compiler") as caught:
        build_source(recipe, build_method(recipe), torch.device("cpu"))
    assert ("--no-build-isolation" in str(caught.value)) == (sys.version_info >= (3, 13))


def mean_colours(images: torch.Tensor) -> torch.Tensor:
    """A made-up layer at stride 8."""
    return torch.nn.functional.avg_pool2d(images.float() - 127.5, 8)


@needs_crf
class TestBootstrapWithCrf(SourceContract):
    def make(self) -> Bootstrap:
        return Bootstrap(mean_colours, clusters=(2, 6), group_size=16, crf=CONFIG)

    def test_maps_have_the_features_size(self) -> None:
        images = random_images((64, 48), (40, 72))
        maps = self.make().label(images, 1, 0, 0)
        assert [m.labels.shape for m in maps] == [(8, 6), (5, 9)]

    def test_it_changes_the_maps_and_disabled_it_does_not(self) -> None:
        draw = np.random.default_rng(0)
        noisy = [
            (image + draw.normal(0, 60, image.shape)).clip(0, 255).astype(np.uint8)
            for image in random_images((128, 128), (128, 96))
        ]
        plain, off, on = (
            Bootstrap(mean_colours, clusters=(6, 6), crf=crf).label(noisy, 1, 0, 0)
            for crf in (None, CrfConfig(), CONFIG)
        )
        assert all(np.array_equal(a.labels, b.labels) for a, b in zip(plain, off, strict=True))
        assert any(not np.array_equal(a.labels, b.labels) for a, b in zip(plain, on, strict=True))

    def test_without_kernels_it_is_the_majority_of_the_enlarged_map(self) -> None:
        """With kernels of no weight what is left is enlarging and taking majorities: mostly the plain map."""
        images = random_images((128, 128))
        none = replace(CONFIG, smoothness=0.0, appearance=0.0)
        plain = Bootstrap(mean_colours, clusters=(4, 4)).label(images, 1, 0, 0)[0].labels
        with_crf = Bootstrap(mean_colours, clusters=(4, 4), crf=none).label(images, 1, 0, 0)[0].labels
        assert (plain == with_crf).mean() > 0.9

    @pytest.mark.parametrize("kernels", [True, False])
    def test_as_written_out(self, kernels: bool) -> None:
        """Unit features enlarged by ``F.interpolate``, brought to unit length anew, in float64; the short side capped."""
        config = CONFIG if kernels else replace(CONFIG, smoothness=0.0, appearance=0.0)
        images = random_images((96, 64), (64, 88), (200, 128), seed=3)
        source = Bootstrap(mean_colours, clusters=(5, 5), short_side=64, crf=config)
        small = [source.prepare(image) for image in images]
        assert small[2].shape == (100, 64, 3)
        layers = [mean_colours(torch.from_numpy(image).permute(2, 0, 1)[None])[0] for image in small]
        rows = torch.cat([layer.flatten(1).T for layer in layers])
        _, centroids = spherical_kmeans(rows, 5, iterations=20, seed=derive(1, "group", 0, 0, 1))
        found = source.label(images, 1, 0, 0)
        for image, layer, one in zip(small, layers, found, strict=True):
            unit = torch.nn.functional.normalize(layer.double(), dim=0)[None]
            pixels = torch.nn.functional.interpolate(unit, image.shape[:2], mode="bilinear", align_corners=False)[0]
            pixels = torch.nn.functional.normalize(pixels, dim=0)
            cosines = torch.einsum("kd,dhw->khw", centroids.double(), pixels).numpy()
            labels = refine(image, cosines, config) if kernels else cosines.argmax(0).astype(np.uint8)
            expected = majority(labels, *layer.shape[1:])
            assert one.labels.shape == expected.shape
            assert (one.labels == expected).mean() >= 0.98


def test_majority_by_hand() -> None:
    labels = np.array([[1, 1, 2, 0], [1, 3, 0, 2], [9, 9, 9, 9]], np.uint8)
    assert majority(labels, 3, 4).tolist() == labels.tolist()
    assert majority(labels, 1, 2).tolist() == [[1, 0]]  # on the right 0, 2 and 9 twice each
    assert majority(np.array([[2, 1]], np.uint8), 1, 1).tolist() == [[1]]  # ties to the lowest
    with pytest.raises(ValueError, match="at most as large"):
        majority(labels, 4, 4)


@pytest.mark.parametrize("size", [(7, 11), (24, 40), (5, 5)])
def test_majority_as_a_loop(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (24, 40)).astype(np.uint8)
    if size == (5, 5):
        labels = labels[:, :24]
    expected = np.zeros(size, np.uint8)
    for i in range(size[0]):
        for j in range(size[1]):
            inside = [
                labels[y, x]
                for y in range(labels.shape[0])
                for x in range(labels.shape[1])
                if int((y + 0.5) * size[0] / labels.shape[0]) == i and int((x + 0.5) * size[1] / labels.shape[1]) == j
            ]
            expected[i, j] = np.bincount(inside).argmax()
    assert np.array_equal(majority(labels, *size), expected)
