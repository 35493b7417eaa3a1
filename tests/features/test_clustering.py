import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyborgs.data.palette import nearest
from cyborgs.errors import UserError
from cyborgs.features.clustering import Clusters, cluster_photos
from cyborgs.features.extraction import iterate_maps, join, layer_maps
from cyborgs.features.frozen_maps import frozen_maps
from cyborgs.metrics.segmentation import confusion, hungarian_scores
from tests.features.fakes import FakeBackbone, MemoryPhotos, blocks


@pytest.fixture
def scenes():
    rng = np.random.default_rng(3)
    pairs = [blocks(rng, cells=((6, 8), (4, 6))[i % 2]) for i in range(6)]
    return MemoryPhotos([p for p, _ in pairs]), [t for _, t in pairs]


def clustered(photos: MemoryPhotos, k: int, **options) -> Clusters:
    """Into k, of the maps of one layer."""
    return cluster_photos(FakeBackbone(), photos, [k], layers=["layer2"], **options)[k]


def test_clusters_find_the_blocks(scenes):
    photos, truths = scenes
    clusters = clustered(photos, k=3, restarts=5)
    counts = np.zeros((3, 3), np.int64)
    for i, truth in enumerate(truths):
        counts += confusion(nearest(clusters.of_cells(FakeBackbone(), photos.read(i)), *truth.shape), truth, 3, 3)
    assert hungarian_scores(counts).miou > 0.95


def test_of_several_starts_the_best_is_taken(scenes):
    photos, _ = scenes
    one, best = (clustered(photos, k=9, restarts=n) for n in (1, 8))
    assert best.cosine > one.cosine
    assert clustered(photos, k=9, restarts=8, seed=3).cosine >= clustered(photos, k=9, seed=3).cosine


def test_deterministic_by_seed_and_sampled_when_there_are_too_many(scenes):
    photos, _ = scenes
    a, b = (clustered(photos, k=4, sample_bytes=60 * 4 * 6) for _ in range(2))
    assert torch.equal(a.centroids, b.centroids)
    assert a.points == 60
    other = clustered(photos, k=4, sample_bytes=60 * 4 * 6, seed=1)
    assert not torch.equal(a.centroids, other.centroids)
    assert clustered(photos, k=4).points == 3 * (12 * 16 + 8 * 12)


def test_centroids_are_of_unit_length_and_assignments_the_nearest(scenes):
    photos, _ = scenes
    backbone = FakeBackbone()
    layers = ["layer2", "layer3"]
    clusters = cluster_photos(backbone, photos, [5], layers=layers)[5]
    assert torch.allclose(clusters.centroids.norm(dim=1), torch.ones(5), atol=1e-5)
    image = photos.read(0)
    maps = layer_maps(backbone, [image], layers)
    joined = F.normalize(join([maps[name][0] for name in layers]), dim=0)
    expected = torch.einsum("kd,dhw->khw", clusters.centroids, joined).argmax(0)
    assert np.array_equal(clusters.of_cells(backbone, image), expected.numpy())


def test_full_resolution_equals_clustering_enlarged_features_whatever_the_strips(scenes, monkeypatch):
    photos, _ = scenes
    backbone, image = FakeBackbone(), photos.read(0)[:90, :101]
    clusters = clustered(photos, k=5)
    large = F.interpolate(layer_maps(backbone, [image], ["layer2"])["layer2"], size=(90, 101), mode="bilinear")
    expected = torch.einsum("kd,dhw->khw", clusters.centroids, F.normalize(large[0], dim=0)).argmax(0).numpy()
    whole = clusters.of_pixels(backbone, image).labels()[0]
    assert whole.shape == (90, 101)
    assert (whole != expected).mean() < 0.001  # ties within rounding
    monkeypatch.setattr("cyborgs.ops.enlarge.STRIP", 1500)
    assert (clusters.of_pixels(backbone, image).labels()[0] != whole).mean() < 0.001


def test_short_side_shrinks_what_the_network_sees(scenes):
    photos, _ = scenes
    clusters = clustered(photos, k=2, short_side=48)
    assert clusters.points == 6 * 6 * 8 // 2 + 3 * 6 * 9
    assert clusters.of_cells(FakeBackbone(), photos.read(0)).shape == (6, 8)
    assert clusters.of_pixels(FakeBackbone(), photos.read(0)).labels()[0].shape == photos.size(0)


def test_refusals(scenes):
    photos, _ = scenes
    with pytest.raises(UserError, match="no photo"):
        clustered(MemoryPhotos([]), k=2)
    with pytest.raises(UserError, match=r"clusters: 5 were asked for, but only 4 cells fit"):
        clustered(photos, k=5, sample_bytes=4 * 4 * 6)
    broken = FakeBackbone()
    with torch.no_grad():
        broken.project[0][0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"p0\.jpg: layer2 holds NaN"):
        cluster_photos(broken, photos, [2], layers=["layer2"])


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
    monkeypatch.setattr("cyborgs.features.extraction.SHARED_PIXELS", 2 * 96 * 128)
    backbone = FakeBackbone()
    list(iterate_maps(backbone, photos, ["layer2"]))
    assert backbone.calls == 3  # three large ones: two and one; three of half that area: together


def test_whitening_whitens(monkeypatch):
    monkeypatch.setattr("cyborgs.features.frozen_maps.CELLS_PER_CHANNEL", 10**6)
    rng = np.random.default_rng(0)
    photos = MemoryPhotos([rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(8)])
    maps = frozen_maps(FakeBackbone(), photos, ["layer2"])
    whitening = maps.whitening("layer2", shrinkage=0.0)
    x = torch.cat([m["layer2"].float().flatten(1).T for m in maps.maps])
    z = (x - whitening.mean) @ whitening.matrix
    assert torch.allclose(z.mean(0), torch.zeros(6), atol=1e-3)
    assert torch.allclose(z.T @ z / len(z), torch.eye(6), atol=0.01)


def test_large_values_are_kept_in_float32():
    backbone = FakeBackbone()
    with torch.no_grad():
        backbone.project[0] *= 1e7
    maps = frozen_maps(backbone, MemoryPhotos([np.full((32, 32, 3), 200, np.uint8)]), ["layer2", "layer3"])
    assert maps.maps[0]["layer2"].dtype == torch.float32
    assert maps.maps[0]["layer3"].dtype == torch.float16
