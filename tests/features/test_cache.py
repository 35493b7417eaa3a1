"""Features of frozen networks: what they are, what they depend on, and when they are computed anew."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cyborgs.data.decode import UnreadableImage, decode
from cyborgs.data.images import PhotoFiles
from cyborgs.errors import NotFiniteError, UserError
from cyborgs.features import cache as module
from cyborgs.features.cache import Extraction, features
from cyborgs.features.transforms import Drawn, Square, Squash
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import weights_hash
from tests.conftest import make_photos
from tests.evaluation.protocols.contract import make_backbone


@pytest.fixture
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture
def files(tmp_path: Path) -> PhotoFiles:
    return PhotoFiles(tuple(sorted(make_photos(tmp_path / "photos", 11).iterdir())))


def last(backbone: Backbone) -> str:
    return backbone.layers[-1]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The photos that are read from now on."""
    read: list[Path] = []
    real = PhotoFiles.read

    def reading(self: PhotoFiles, i: int) -> NDArray[np.uint8]:
        read.append(self.paths[i])
        return real(self, i)

    monkeypatch.setattr(PhotoFiles, "read", reading)
    return read


@pytest.mark.parametrize("threads", [0, 3])
def test_the_mean_of_the_map_of_each_photo_alone(backbone: Backbone, files: PhotoFiles, threads: int) -> None:
    layer = last(backbone)
    found = features(backbone, files, Extraction(layer, Square(32)), threads=threads)
    assert found.shape == (11, backbone.widths[layer])
    assert found.dtype == np.float32
    assert backbone.training
    backbone.eval()
    for i, file in enumerate(files.paths):
        image = torch.from_numpy(Square(32)(decode(file.read_bytes(), "x"))).permute(2, 0, 1)[None]
        with torch.no_grad():
            map_ = backbone(backbone.normalise(image.contiguous()), [layer])[layer]
        np.testing.assert_allclose(found[i], map_.double().mean(dim=(2, 3))[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_photos_features_do_not_depend_on_its_neighbours(backbone: Backbone, files: PhotoFiles) -> None:
    how = Extraction(last(backbone), Square(32))
    calls: list[int] = []
    backbone.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    whole = features(backbone, files, how)
    assert calls == [8, 8]  # the last one, of three photos, is filled up
    assert np.array_equal(features(backbone, files.subset(range(9, 11)), how), whole[9:])
    assert np.array_equal(features(backbone, files.subset(range(10, -1, -1)), how)[::-1], whole)


def test_windows(backbone: Backbone, files: PhotoFiles) -> None:
    """6 x 6 windows of the 7 x 7 map: four, channel by channel; and at stride 16 nine of 8 x 8."""
    layer = last(backbone)
    image = torch.from_numpy(np.stack([Squash(224, 256)(decode(f.read_bytes(), "x")) for f in files.paths[:2]]))
    maps = copy.deepcopy(backbone).eval()(backbone.normalise(image.permute(0, 3, 1, 2).contiguous()), [layer])[layer]
    assert maps.shape[2:] == (7, 7)
    wanted = torch.stack([maps[:, :, y : y + 6, x : x + 6].mean((2, 3)) for y in (0, 1) for x in (0, 1)], 2).flatten(1)
    found = features(backbone, files.subset([0, 1]), Extraction(layer, Squash(224, 256), "windows"))
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    third = module._pool(torch.rand(2, 3, 14, 14), 16, "windows")
    assert third.shape == (2, 27)
    values = torch.rand(1, 1, 14, 14)
    assert torch.allclose(module._pool(values, 16, "windows"), F.avg_pool2d(values, 8, 3).flatten(1))
    assert module._pool(torch.rand(1, 4, 2, 3), 32, "windows").shape[1] % 4 == 0


def test_kept_and_found_again(
    backbone: Backbone, files: PhotoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted(monkeypatch)
    how = Extraction(last(backbone), Square(32))
    folder = tmp_path / "deep" / "cache"
    ticks: list[tuple[int, int]] = []
    first = features(backbone, files, how, cache=folder, progress=lambda *a: ticks.append(a))
    assert ticks == [(n, 11) for n in range(1, 12)]
    again = features(backbone.eval(), files, how, cache=folder, progress=lambda *a: ticks.append(a))
    assert np.array_equal(first, again)
    assert np.array_equal(first, features(backbone, files, how, threads=0))
    assert len(read) == 2 * 11
    assert ticks[11:] == [(11, 11)]
    (file,) = folder.rglob("*.npy")
    assert np.array_equal(np.load(file), first)
    features(backbone, files, how)
    features(backbone, files, how)
    assert len(read) == 4 * 11


@pytest.mark.parametrize("threads", [0, 2])
def test_an_interrupted_extraction_goes_on_from_its_shards(
    backbone: Backbone, files: PhotoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(module, "SHARD", 4)
    monkeypatch.setattr(module, "BATCH", {"cpu": 2, "cuda": 2})
    how = Extraction(last(backbone), Square(32))
    wanted = features(backbone, files, how)

    def stop(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(backbone, files, how, cache=tmp_path / "c", threads=threads, progress=stop)
    assert sorted(f.name for f in (tmp_path / "c").rglob("*.npy")) == ["00000000.npy", "00000004.npy"]
    read = counted(monkeypatch)
    ticks: list[tuple[int, int]] = []
    found = features(backbone, files, how, cache=tmp_path / "c", threads=threads, progress=lambda *a: ticks.append(a))
    assert np.array_equal(found, wanted)
    assert sorted(read) == list(files.paths[8:])
    assert ticks == [(8, 11), (9, 11), (10, 11), (11, 11)]


def test_a_damaged_shard_alone_is_computed_again(
    backbone: Backbone, files: PhotoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD", 4)
    monkeypatch.setattr(module, "BATCH", {"cpu": 2, "cuda": 2})
    how = Extraction(last(backbone), Square(32))
    said: list[str] = []
    wanted = features(backbone, files, how, cache=tmp_path / "c")
    first, second, third = sorted((tmp_path / "c").rglob("*.npy"))
    third.write_bytes(first.read_bytes())  # whole, but of other photos
    second.unlink()
    read = counted(monkeypatch)
    assert np.array_equal(features(backbone, files, how, cache=tmp_path / "c", say=said.append), wanted)
    assert sorted(read) == list(files.paths[4:])
    assert said == [f"{third}: damaged; the features of its photos are computed again."]


def test_anew_where_anything_differs(
    backbone: Backbone, files: PhotoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted(monkeypatch)
    how = Extraction(last(backbone), Square(32))
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        next(other.trunk.buffers()).add_(1e-3)  # a statistic of BatchNorm
    other_colours = copy.deepcopy(backbone)
    object.__setattr__(other_colours, "config", type(backbone.config)("timm:test_resnet", mean=(0.5, 0.5, 0.5)))
    tries = [
        (backbone, files, how),
        (other, files, how),
        (make_backbone(seed=1), files, how),
        (other_colours, files, how),
        (backbone, files.subset(range(1, 11)), how),
        (backbone, files, Extraction(backbone.layers[0], Square(32))),
        (backbone, files, Extraction(last(backbone), Square(40))),
        (backbone, files, Extraction(last(backbone), Squash(32, 36))),
        (backbone, files, Extraction(last(backbone), Drawn(32, 0))),
        (backbone, files, Extraction(last(backbone), Drawn(32, 1))),
        (backbone, files, Extraction(last(backbone), Square(32), "windows")),
    ]
    for _ in range(2):
        for network, photos, extraction in tries:
            features(network, photos, extraction, cache=tmp_path / "cache")
    assert len(read) == sum(len(photos) for _, photos, _ in tries)
    read.clear()
    os.utime(files.paths[3], ns=(1, 1))
    features(backbone, files, how, cache=tmp_path / "cache")
    assert len(read) == 11


def test_a_damaged_file_is_made_anew(
    backbone: Backbone, files: PhotoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = counted(monkeypatch)
    how = Extraction(last(backbone), Square(32))
    said: list[str] = []
    wanted = features(backbone, files, how, cache=tmp_path / "c")
    (file,) = (tmp_path / "c").rglob("*.npy")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", whole[:100], whole[:-1], bytes(flipped)):
        file.write_bytes(content)
        assert np.array_equal(features(backbone, files, how, cache=tmp_path / "c", say=said.append), wanted)
        assert file.read_bytes() == whole
    assert len(read) == 5 * 11
    assert len(said) == 4
    assert file.name in said[0]
    assert list(file.parent.iterdir()) == [file]


def test_bad_input(backbone: Backbone, files: PhotoFiles, tmp_path: Path) -> None:
    how = Extraction(last(backbone), Square(32))
    with pytest.raises(UserError, match=r"gone\.png"):
        features(backbone, PhotoFiles((*files.paths, tmp_path / "gone.png")), how, cache=tmp_path / "c")
    with pytest.raises(UserError, match=r"gone\.png"):
        features(backbone, PhotoFiles((*files.paths, tmp_path / "gone.png")), how)
    with pytest.raises(UserError, match="no layer 'layer9'"):
        features(backbone, files, Extraction("layer9", Square(32)))
    files.paths[9].write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match="photo09"):
        features(backbone, files, how)
    assert features(backbone, PhotoFiles(()), how).shape == (0, backbone.widths[last(backbone)])


def test_nan_names_the_photo(backbone: Backbone, files: PhotoFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Extraction(last(backbone), Square(32))
    real = module._pool

    def broken(maps: torch.Tensor, *rest: object) -> torch.Tensor:
        pooled = real(maps, *rest)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:
            pooled[1, 3] = math.inf
        return pooled

    calls: list[int] = []
    monkeypatch.setattr(module, "_pool", broken)
    with pytest.raises(NotFiniteError, match=r"photo09\.png: .* holds NaN or infinity"):
        features(backbone, files, how)


def test_hash_of_weights(backbone: Backbone) -> None:
    assert weights_hash(backbone) == weights_hash(copy.deepcopy(backbone).eval())
    assert weights_hash(backbone) != weights_hash(make_backbone(seed=1))
    assert weights_hash(backbone) == weights_hash(backbone.to(memory_format=torch.channels_last))
