"""Photos that lie in no folder go through training and feature extraction as those in one do."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cyborgs.data.images import Images, PhotoFiles, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.log import RunLog
from cyborgs.engine.signals import Stop
from cyborgs.features.cache import Extraction, features
from cyborgs.features.frozen_maps import frozen_maps
from cyborgs.features.transforms import Square
from cyborgs.masks.store import MaskStore
from cyborgs.runs.assemble import build_trainer
from cyborgs.runs.build import build_method
from cyborgs.runs.devices import make_fabric
from tests.conftest import tiny_recipe
from tests.evaluation.protocols.contract import make_backbone
from tests.zipped import zipped


def trained(images: Images, out: Path, workers: int) -> tuple[dict[str, torch.Tensor], list[np.ndarray]]:
    """Weights after a warm-up epoch and one on bootstrapped masks, and the masks."""
    recipe = replace(tiny_recipe(epochs=2, workers=workers).resolved(len(images)), micro_batch=0)
    fabric = make_fabric(recipe)
    method = build_method(recipe)
    with RunLog(out, stream=io.StringIO()) as log:
        checkpoints = Checkpoints(out / "checkpoints", 1)
        build_trainer(fabric, method, recipe, images, out, log, checkpoints, [], Stop()).fit()
    store = MaskStore(out)
    return method.state_dict(), [store[i] for i in range(len(images))]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_zip_file_trains_as_its_folder(photos: Path, tmp_path: Path, workers: int) -> None:
    scanned = ScannedImages.from_scan(scan(list_images(photos)))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    wanted, masks = trained(scanned, tmp_path / "a", workers)
    found, others = trained(zipped(photos, tmp_path / "photos.zip"), tmp_path / "b", workers)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert all(np.array_equal(*pair) for pair in zip(masks, others, strict=True))


def test_a_zip_file_goes_through_frozen_networks(photos: Path, tmp_path: Path) -> None:
    files, archive = PhotoFiles(tuple(sorted(photos.iterdir()))), zipped(photos, tmp_path / "photos.zip")
    backbone = make_backbone()
    how = Extraction(backbone.layers[-1], Square(32))
    wanted = features(backbone, files, how, cache=tmp_path / "cache")
    for _ in range(2):  # computed, then found
        assert np.array_equal(features(backbone, archive, how, cache=tmp_path / "cache"), wanted)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    maps = [frozen_maps(backbone, images, backbone.layers[-2:]) for images in (files, archive)]
    for one, other in zip(maps[0].maps, maps[1].maps, strict=True):
        assert all(torch.equal(one[layer], other[layer]) for layer in one)
