from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cyborgs.masks import bootstrap
from cyborgs.masks.bootstrap import Bootstrap, cap_short_side, draw_group_clusters, place
from cyborgs.masks.source import MaskSource
from cyborgs.seeds import derive
from tests.masks.contract import SourceContract, random_images


def colours(images: Tensor) -> Tensor:
    """Colours less their middle, averaged over 8 x 8 pixels: features whose clusters are plain to see."""
    return torch.nn.functional.avg_pool2d(images.float() - 127.5, 8)


def convolution(channels: int = 16) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(channels, 3, 9, 9, generator=generator)
    return lambda images: torch.conv2d(images.float() / 255 - 0.5, weight, stride=8, padding=4)


class TestBootstrap(SourceContract):
    def make(self) -> MaskSource:
        return Bootstrap(convolution(), clusters=(2, 20), short_side=48)


def test_all_k_occur_in_5000_draws():
    drawn = [draw_group_clusters(seed=0, cycle=3, group=g, low=2, high=256) for g in range(5000)]
    assert sorted(set(drawn)) == list(range(2, 257))
    assert np.mean(drawn) == pytest.approx(129, abs=4)  # 4 standard errors


def test_k_depends_on_seed_cycle_and_group():
    def draws(seed: int, cycle: int) -> list[int]:
        return [draw_group_clusters(seed, cycle, g, 2, 256) for g in range(20)]

    assert draws(0, 0) == draws(0, 0)
    assert draws(0, 0) != draws(1, 0) != draws(0, 1)
    assert draw_group_clusters(0, 0, 0, 9, 9) == 9


def test_groups_are_random_and_differ_between_cycles():
    source = Bootstrap(colours, group_size=16)
    groups = source.groups(40, seed=0, cycle=0)
    assert [len(g) for g in groups] == [16, 16, 8]
    assert np.concatenate(groups).tolist() != list(range(40))
    others = [source.groups(40, 0, 1), source.groups(40, 1, 0)]
    assert all(np.concatenate(o).tolist() != np.concatenate(groups).tolist() for o in others)


def test_the_network_gets_channels_last():
    def look(images: Tensor) -> Tensor:
        assert images.is_contiguous(memory_format=torch.channels_last)
        return colours(images)

    Bootstrap(look).label(random_images((64, 48), (64, 48), (40, 72)), 0, 0, 0)


def test_map_has_the_size_of_the_feature_map():
    sizes = [(64, 48), (40, 72), (64, 48), (97, 33), (40, 72)]
    maps = Bootstrap(convolution(), clusters=(4, 4)).label(random_images(*sizes), 0, 0, 0)
    assert [m.labels.shape for m in maps] == [(-(-h // 8), -(-w // 8)) for h, w in sizes]


@pytest.mark.parametrize("call_pixels", [1, 2 * 64 * 48, 10**9])
def test_order_survives_mixed_sizes_and_small_calls(monkeypatch: pytest.MonkeyPatch, call_pixels: int):
    """Pictures of one colour each: every map must carry the cluster of its own colour."""
    monkeypatch.setitem(bootstrap.CALL_PIXELS, "cpu", call_pixels)
    paint = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    names = ["red", "blue", "green", "green", "red", "blue", "red"]
    sizes = [(64, 48), (40, 72), (64, 48), (40, 72), (40, 72), (64, 48), (64, 48)]
    images = [np.full((*s, 3), paint[n], np.uint8) for n, s in zip(names, sizes, strict=True)]
    maps = Bootstrap(colours, clusters=(3, 3)).label(images, 0, 0, 0)
    found = {}
    for name, label_map in zip(names, maps, strict=True):
        (label,) = np.unique(label_map.labels)
        assert found.setdefault(name, label) == label
    assert len(set(found.values())) == 3


def test_one_image_is_clustered_with_its_group():
    """Two halves of one picture in two images: the halves of equal colour share a label across images."""
    left, right = np.zeros((32, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)
    left[:, :32], left[:, 32:] = (255, 0, 0), (0, 255, 0)
    right[:, :32], right[:, 32:] = (0, 255, 0), (255, 0, 0)
    a, b = (m.labels for m in Bootstrap(colours, clusters=(2, 2)).label([left, right], 0, 0, 0))
    assert np.array_equal(a, b[:, ::-1])
    assert len(np.unique(a)) == 2


def test_labels_are_those_of_the_k_means(monkeypatch: pytest.MonkeyPatch):
    seen = {}

    def spy(x: Tensor, k: int, *, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
        seen.update(
            shape=tuple(x.shape), dtype=x.dtype, k=k, iterations=iterations, seed=seed, grad=torch.is_grad_enabled()
        )
        seen["x"] = x.clone()
        return torch.arange(len(x)) % 256, x[:k]

    monkeypatch.setattr(bootstrap, "spherical_kmeans", spy)
    features = convolution(5)
    images = random_images((64, 48), (40, 72), (64, 48))
    source = Bootstrap(lambda x: features(x).double(), clusters=(2, 256), iterations=7)
    maps = source.label(images, seed=4, cycle=1, group=9)
    assert seen["shape"] == (48 + 45 + 48, 5)
    assert (seen["dtype"], seen["iterations"], seen["grad"]) == (torch.float32, 7, False)
    assert seen["k"] == min(141, draw_group_clusters(4, 1, 9, 2, 256))
    assert seen["seed"] == derive(4, "group", 1, 9, 1)
    expected = [features(torch.from_numpy(i).permute(2, 0, 1)[None])[0].flatten(1).T for i in images]
    assert torch.allclose(seen["x"], torch.cat(expected), atol=1e-5)
    assert np.concatenate([m.labels.ravel() for m in maps]).tolist() == [i % 256 for i in range(141)]


def test_255_is_a_label_like_any_other():
    draw = np.random.default_rng(0)
    noise = [draw.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(2)]
    maps = Bootstrap(convolution(), clusters=(256, 256), iterations=2).label(noise, 0, 0, 0)
    assert len(np.unique([m.labels for m in maps])) == 256


def test_fewer_points_than_clusters():
    maps = Bootstrap(convolution(), clusters=(200, 200)).label(random_images((16, 16), (8, 24)), 0, 0, 0)
    assert [m.labels.shape for m in maps] == [(2, 2), (1, 3)]
    assert max(m.labels.max() for m in maps) < 7


def test_other_coordinates_other_clusters():
    images = random_images((64, 64), (64, 64))
    source = Bootstrap(convolution(), clusters=(12, 12), iterations=1)
    maps = [
        np.stack([m.labels for m in source.label(images, *at)]) for at in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    ]
    assert all(not np.array_equal(maps[0], other) for other in maps[1:])


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((480, 640), 0, (480, 640)),
        ((480, 640), 480, (480, 640)),
        ((480, 640), 500, (480, 640)),
        ((480, 640), 240, (240, 320)),
        ((640, 427), 320, (480, 320)),
        ((1000, 33), 32, (970, 32)),
    ],
)
def test_short_side(size: tuple[int, int], short: int, expected: tuple[int, int]):
    (image,) = random_images(size)
    capped = cap_short_side(image, short)
    assert capped.shape == (*expected, 3)
    assert cap_short_side(capped, short) is capped


def test_short_side_averages_areas():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = image.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(cap_short_side(image, 32) - expected).max() <= 0.5


def test_short_side_reaches_the_network():
    maps = Bootstrap(colours, clusters=(3, 3), short_side=32).label(random_images((128, 192), (24, 40)), 0, 0, 0)
    assert [m.labels.shape for m in maps] == [(4, 6), (3, 5)]


def test_maps_are_not_held_twice(monkeypatch: pytest.MonkeyPatch):
    """When the clustering begins, its matrix is the only copy of the features."""
    alive: list[weakref.ref[Tensor]] = []

    def features(images: Tensor) -> Tensor:
        maps = colours(images)
        alive.append(weakref.ref(maps))
        return maps

    def spy(x: Tensor, k: int, **_: int) -> tuple[Tensor, Tensor]:
        gc.collect()
        assert all(reference() is None for reference in alive)
        floats = [
            o for o in gc.get_objects() if type(o) is Tensor and o.dtype == torch.float32 and o.shape[-1:] == (3,)
        ]
        assert [tuple(o.shape) for o in floats if len(o) > 10] == [(64 * 3, 3)]
        return torch.zeros(len(x), dtype=torch.int64), x[:k]

    monkeypatch.setattr(bootstrap, "spherical_kmeans", spy)
    Bootstrap(features, clusters=(2, 2)).label(random_images(*[(64, 64)] * 3), 0, 0, 0)


def test_places_lie_as_far_apart_as_the_formula_says():
    height, width, weight = 5, 7, 0.8
    rows = place(height, width, weight)
    assert rows.shape == (35, 4)
    assert rows.dtype == torch.float32
    y, x = np.divmod(np.arange(35), width)
    dy, dx = (np.subtract.outer(v, v) / size for v, size in ((y, height), (x, width)))
    expected = weight**2 * (2 - np.cos(np.pi * dy) - np.cos(np.pi * dx))
    assert torch.cdist(rows.double(), rows.double()).square().numpy() == pytest.approx(expected, abs=1e-6)
    assert rows.norm(dim=1).numpy() == pytest.approx(np.full(35, weight), rel=1e-6)


def test_position_adds_places_to_features_of_unit_length(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def spy(x: Tensor, k: int, **_: int) -> tuple[Tensor, Tensor]:
        seen.append(x)
        return torch.zeros(len(x), dtype=torch.int64), x[:k]

    monkeypatch.setattr(bootstrap, "spherical_kmeans", spy)
    images = random_images((64, 48), (40, 72))
    for position in (0.0, 0.5):
        Bootstrap(convolution(), clusters=(2, 2), position=position).label(images, 0, 0, 0)
    features, both = seen
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    assert torch.allclose(both[:, :-4].double(), unit, atol=1e-6)
    assert torch.equal(both[:, -4:], torch.cat([place(8, 6, 0.5), place(5, 9, 0.5)]))


def test_position_makes_regions_compact_but_not_blind():
    """Noise: far fewer broken edges between neighbours with it; two halves of other colours: still told apart."""
    noise = random_images((160, 160))

    def borders(position: float) -> float:
        labels = Bootstrap(colours, clusters=(9, 9), position=position).label(noise, 0, 0, 0)[0].labels
        return float((labels[1:] != labels[:-1]).mean() + (labels[:, 1:] != labels[:, :-1]).mean())

    assert borders(2.0) < 0.5 * borders(0.0)
    halves = np.full((160, 160, 3), 230, np.uint8)
    halves[:, 80:] = 20
    labels = Bootstrap(colours, clusters=(6, 6), position=0.5).label([halves], 0, 0, 0)[0].labels
    assert not set(labels[:, :10].ravel()) & set(labels[:, 10:].ravel())
    assert len(np.unique(labels)) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clusters": (0, 5)}, "1 <= low <= high <= 256, got 0 and 5"),
        ({"clusters": (9, 5)}, "got 9 and 5"),
        ({"clusters": (2, 257)}, "got 2 and 257"),
        ({"group_size": 0}, "group_size: need at least 1"),
        ({"iterations": 0}, "iterations >= 1"),
        ({"position": -0.1}, "position >= 0"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Bootstrap(colours, **settings)  # type: ignore[arg-type]


def test_features_of_another_shape():
    with pytest.raises(ValueError, match=r"features gave \(1, 3\) for 1 images"):
        Bootstrap(lambda x: x.float().mean((2, 3))).label(random_images((16, 16)), 0, 0, 0)
