"""Bytes an image: at most 4,915 on average at 640x480, index and manifest included."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from cyborgs.masks.store import GenerationWriter, MaskStore
from cyborgs.structures import LabelMap

LIMIT = 4915


def stored_size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def test_bytes_an_image_of_regions_like_those_of_photos(tmp_path: Path):
    """60 x 80 cells, 129 clusters shared by 16 images: smooth regions with ragged edges."""
    draw = np.random.default_rng(0)
    writer = GenerationWriter(tmp_path, 0, 16)
    for index in range(16):
        coarse = draw.standard_normal((15, 20, 129), np.float32)
        smooth = np.stack([cv2.resize(np.ascontiguousarray(coarse[..., c]), (80, 60)) for c in range(129)], -1)
        labels = (smooth + 0.2 * draw.standard_normal(smooth.shape, np.float32)).argmax(-1)
        writer.write(index, LabelMap(labels.astype(np.uint8)))
    writer.publish()
    assert len(np.unique(MaskStore(tmp_path)[0])) > 50
    assert 500 < stored_size(tmp_path) / 16 <= LIMIT


def test_bytes_an_image_of_real_photos(tmp_path: Path):
    """Random weights: the features are rougher than trained ones."""
    folder = os.environ.get("CYBORGS_TEST_DATA")
    if not folder or not (Path(folder) / "osie.tar").exists():
        pytest.skip("CYBORGS_TEST_DATA names no folder with osie.tar")
    import torch

    from cyborgs.masks.bootstrap import Bootstrap
    from cyborgs.models.backbone import Backbone
    from cyborgs.models.config import BackboneConfig

    images = []
    with tarfile.open(Path(folder) / "osie.tar") as archive:
        for member in archive:
            if member.name.endswith(".jpg") and (file := archive.extractfile(member)) is not None:
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
                images.append(cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA))
            if len(images) == 4:
                break
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="resnet18"), ["layer2.1"])
    backbone.eval()
    source = Bootstrap(lambda x: backbone(backbone.normalise(x))["layer2.1"], clusters=(129, 129), iterations=10)
    writer = GenerationWriter(tmp_path, 0, len(images))
    for index, label_map in enumerate(source.label(images, 0, 0, 0)):
        assert label_map.labels.shape == (60, 80)
        writer.write(index, label_map)
    writer.publish()
    assert stored_size(tmp_path) / len(images) <= LIMIT
