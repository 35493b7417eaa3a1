import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyborgs.features.clustering import assign, cluster_images, cluster_miou, map_miou
from cyborgs.features.extraction import frozen_maps, iterate_maps, join, layer_maps
from tests.features.fakes import FakeBackbone, MemoryPhotos, blocks


@pytest.fixture
def scenes():
    rng = np.random.default_rng(3)
    pairs = [blocks(rng, cells=((6, 8), (4, 6))[i % 2]) for i in range(6)]
    return MemoryPhotos([p for p, _ in pairs]), [t for _, t in pairs]


def test_clusters_find_the_blocks(scenes):
    photos, truths = scenes
    score = cluster_miou(FakeBackbone(), photos, truths.__getitem__, layers=["layer2"], classes=3)
    assert score.miou > 0.95
    shuffled = [np.roll(t, 16, 1) for t in truths]
    assert cluster_miou(FakeBackbone(), photos, shuffled.__getitem__, layers=["layer2"], classes=3).miou < 0.6


def test_maps_are_computed_once_while_they_fit(scenes, monkeypatch):
    photos, truths = scenes
    backbone, poor = FakeBackbone(), FakeBackbone()
    score = cluster_miou(backbone, photos, truths.__getitem__, layers=["layer2"], classes=3)
    assert backbone.calls == 2
    monkeypatch.setattr("cyborgs.features.clustering._KEPT", 6 * 4 * 12 * 16 * 2)
    assert cluster_miou(poor, photos, truths.__getitem__, layers=["layer2"], classes=3) == score
    assert poor.calls > 2


def test_void_pixels_do_not_count(scenes):
    photos, truths = scenes
    wrong = [np.where(np.arange(t.shape[1]) < t.shape[1] // 2, 9, t).astype(np.uint8) for t in truths]
    score = cluster_miou(FakeBackbone(), photos, wrong.__getitem__, layers=["layer2"], classes=3, void=9)
    assert score.miou > 0.95


def test_a_grid_scores_what_its_cells_hold():
    truth = np.kron(np.array([[0, 1], [1, 1]], np.uint8), np.ones((4, 4), np.uint8))
    grid = np.arange(4, dtype=np.uint8).reshape(2, 2)
    score = map_miou(lambda i: grid, lambda i: truth, 2, classes=2)
    assert score.iou == (1.0, pytest.approx(1 / 3))


def test_deterministic_by_seed_and_sampled_when_there_are_too_many(scenes):
    photos, _ = scenes
    a, b = (cluster_images(FakeBackbone(), photos, layers=["layer2"], k=4, max_points=60) for _ in range(2))
    assert torch.equal(a.centroids, b.centroids)
    assert a.points == 60
    other = cluster_images(FakeBackbone(), photos, layers=["layer2"], k=4, max_points=60, seed=1)
    assert not torch.equal(a.centroids, other.centroids)
    everything = cluster_images(FakeBackbone(), photos, layers=["layer2"], k=4)
    assert everything.points == 3 * (12 * 16 + 8 * 12)
    few = cluster_images(FakeBackbone(), photos, layers=["layer2"], k=2, max_points=4)
    assert few.points == 4


def test_centroids_are_of_unit_length_and_assignments_the_nearest(scenes):
    photos, _ = scenes
    backbone = FakeBackbone()
    layers = ["layer2", "layer3"]
    clusters = cluster_images(backbone, photos, layers=layers, k=5)
    assert torch.allclose(clusters.centroids.norm(dim=1), torch.ones(5), atol=1e-5)
    image = photos.read(0)
    maps = layer_maps(backbone, [image], layers)
    joined = F.normalize(join([maps[name][0] for name in layers]), dim=0)
    expected = torch.einsum("kd,dhw->khw", clusters.centroids, joined).argmax(0)
    assert np.array_equal(assign(backbone, clusters, image), expected.numpy())


def test_full_resolution_equals_clustering_enlarged_features_whatever_the_strips(scenes, monkeypatch):
    photos, _ = scenes
    backbone, image = FakeBackbone(), photos.read(0)[:90, :101]
    clusters = cluster_images(backbone, photos, layers=["layer2"], k=5)
    large = F.interpolate(layer_maps(backbone, [image], ["layer2"])["layer2"], size=(90, 101), mode="bilinear")
    expected = torch.einsum("kd,dhw->khw", clusters.centroids, F.normalize(large[0], dim=0)).argmax(0).numpy()
    whole = assign(backbone, clusters, image, full_resolution=True)
    assert whole.shape == (90, 101)
    assert (whole != expected).mean() < 0.001  # ties within rounding
    monkeypatch.setattr("cyborgs.ops.enlarge.STRIP", 1500)
    assert (assign(backbone, clusters, image, full_resolution=True) != whole).mean() < 0.001


def test_short_side_shrinks_what_the_network_sees(scenes):
    photos, _ = scenes
    clusters = cluster_images(FakeBackbone(), photos, layers=["layer2"], k=2, short_side=48)
    assert clusters.points == 6 * 6 * 8 // 2 + 3 * 6 * 9
    assert assign(FakeBackbone(), clusters, photos.read(0)).shape == (6, 8)
    assert assign(FakeBackbone(), clusters, photos.read(0), full_resolution=True).shape == photos.size(0)


def test_refusals(scenes):
    photos, _ = scenes
    with pytest.raises(ValueError, match="2 to 256"):
        cluster_images(FakeBackbone(), photos, layers=["layer2"], k=257)
    with pytest.raises(ValueError, match="no photo"):
        cluster_images(FakeBackbone(), MemoryPhotos([]), layers=["layer2"], k=2)
    with pytest.raises(ValueError, match="max_points"):
        cluster_images(FakeBackbone(), photos, layers=["layer2"], k=5, max_points=4)
    broken = FakeBackbone()
    with torch.no_grad():
        broken.project[0][0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"p0\.jpg: layer2 holds NaN"):
        cluster_images(broken, photos, layers=["layer2"], k=2)


def test_maps_of_equal_sizes_share_calls_and_the_mode_is_given_back(scenes):
    photos, _ = scenes
    backbone = FakeBackbone().train()
    seen = []
    found = {i: size for i, size, _ in iterate_maps(backbone, photos, ["layer2"], progress=lambda *a: seen.append(a))}
    assert found == {i: photos.size(i) for i in range(6)}
    assert backbone.calls == 2
    assert backbone.training
    assert seen == [(n, 6) for n in range(1, 7)]


def test_batches_do_not_grow_beyond_their_bound(scenes, monkeypatch):
    photos, _ = scenes
    monkeypatch.setattr("cyborgs.features.extraction.CALL_PIXELS", 2 * 96 * 128)
    backbone = FakeBackbone()
    list(iterate_maps(backbone, photos, ["layer2"]))
    assert backbone.calls == 3  # three large ones: two and one; three of half that area: together


def test_whitening_whitens(monkeypatch):
    monkeypatch.setattr("cyborgs.features.extraction.CELLS_PER_CHANNEL", 10**6)
    rng = np.random.default_rng(0)
    photos = MemoryPhotos([rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(8)])
    maps = frozen_maps(FakeBackbone(), photos, ["layer2"])
    whitening = maps.whitening("layer2", shrinkage=0.0)
    x = torch.cat([m["layer2"].float().flatten(1).T for m in maps.maps])
    z = (x - whitening.mean) @ whitening.matrix
    assert torch.allclose(z.mean(0), torch.zeros(6), atol=1e-3)
    assert torch.allclose(z.T @ z / len(z), torch.eye(6), atol=0.01)
    plain = maps.whitening("layer2", full=False)
    assert torch.allclose(((x - plain.mean) @ plain.matrix).std(0), torch.ones(6), atol=0.01)
    assert not torch.allclose(plain.matrix, whitening.matrix, atol=0.1)


def test_large_values_are_kept_in_float32():
    backbone = FakeBackbone()
    with torch.no_grad():
        backbone.project[0] *= 1e7
    maps = frozen_maps(backbone, MemoryPhotos([np.full((32, 32, 3), 200, np.uint8)]), ["layer2", "layer3"])
    assert maps.maps[0]["layer2"].dtype == torch.float32
    assert maps.maps[0]["layer3"].dtype == torch.float16
