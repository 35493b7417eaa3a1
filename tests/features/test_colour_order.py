from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.evaluation.sets.classified import open_folders
from cyborgs.evaluation.sets.pixel_sets import open_pixels
from cyborgs.evaluation.sets.voc_lists import open_voc
from cyborgs.features.colour_order import colour_doubt, colour_warning, first_layers
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from tests.evaluation.protocols.contract import make_classes, make_pixels
from tests.evaluation.voc import make_voc

UInt8 = NDArray[np.uint8]
CAFFE = torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)


def photos(count: int = 16, seed: int = 0, grey: bool = False) -> list[UInt8]:
    """Red on the whole, with fine and coarse structure."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = np.kron(rng.integers(0, 120, (6, 8, 1)), np.ones((8, 8, 1)))
        image = coarse + rng.integers(0, 30, (48, 64, 3)) + (60 if grey else np.array([105, 40, 10]))
        found.append((image.mean(2, keepdims=True).repeat(3, 2) if grey else image).astype(np.uint8))
    return found


def network(name: str = "resnet18") -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Backbone(BackboneConfig(name=name)).eval()


def trained(x: Tensor) -> Backbone:
    """The statistics of the first BatchNorm are those of images (B, 3, H, W), float64 by numpy."""
    backbone = network()
    convolution, norm = backbone.trunk.conv1, backbone.trunk.bn1
    with torch.no_grad():
        y = convolution(x).numpy().astype(np.float64)
    norm.running_mean.copy_(torch.from_numpy(y.mean((0, 2, 3))))
    norm.running_var.copy_(torch.from_numpy(y.var((0, 2, 3))))
    return backbone


def batch(images: list[UInt8]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.fixture
def own() -> Backbone:
    return trained(network().normalise(batch(photos(40, seed=1))))


def test_weights_that_fit_are_not_warned_of(own: Backbone) -> None:
    assert colour_warning(own, photos()) is None


def test_swapped_channels(own: Backbone) -> None:
    own.trunk.conv1.weight.data = own.trunk.conv1.weight.data.flip(1)
    before = {n: v.clone() for n, v in own.state_dict().items()}
    said = colour_warning(own, photos())
    assert said is not None
    assert said.startswith("the weights look as if they were trained on BGR, but are given RGB")
    assert all(torch.equal(v, before[n]) for n, v in own.state_dict().items())
    assert not own.training


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (lambda x: x, "RGB of 0..255, not normalised"),
        (lambda x: x / 255, "RGB of 0..1, not normalised"),
        (lambda x: x.flip(1), "BGR of 0..255, not normalised"),
        (lambda x: (x - torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)).flip(1), "BGR of 0..255, less the mean"),
    ],
)  # fmt: skip
def test_another_scale(scale: object, words: str) -> None:
    said = colour_warning(trained(scale(batch(photos(40, seed=1)).float())), photos())  # type: ignore[operator]
    assert said is not None
    assert f"trained on {words}, but" in said


def natural(count: int, seed: int) -> list[UInt8]:
    """Each with a tint of its own, such that red and blue less the mean are alike on the whole."""
    rng = np.random.default_rng(seed)
    found = []
    for image in photos(count, seed, grey=True):
        tint = CAFFE.flatten().numpy() - 117 + rng.normal(0, 12, 3) * [1, 0.2, 1]
        found.append(np.clip(image + tint, 0, 255).astype(np.uint8))
    return found


def test_every_kind_of_labelled_photos_is_looked_at(tmp_path: Path) -> None:
    backbone = trained(batch(photos(40, seed=1)).flip(1).float())
    classes = open_folders(str(make_classes(tmp_path / "classes")), 0)
    pixels = open_pixels(str(make_pixels(tmp_path / "pixels")), "", seed=0)
    for data in (classes, pixels, open_voc(str(make_voc(tmp_path / "voc")), 0, 0)):
        said = colour_doubt(backbone, data)
        assert said is not None
        assert "of 0..255" in said


def test_both_orders_are_named_where_both_fit() -> None:
    for order, first, second in ((1, "RGB", "BGR"), (-1, "BGR", "RGB")):
        x = batch(natural(60, 1)).float() - CAFFE
        said = colour_warning(trained(x if order > 0 else x.flip(1)), natural(16, 0))
        assert said is not None
        for name in (first, second):
            assert f"{name} of 0..255, less the mean" in said
        assert "nearly as well" in said


def test_the_conversion_that_the_docs_tell() -> None:
    backbone = trained((batch(photos(40, seed=1)).float() - CAFFE).flip(1))
    assert colour_warning(backbone, photos()) is not None
    image = batch(photos(2))
    with torch.no_grad():
        wanted = backbone.trunk.conv1((image.float() - CAFFE).flip(1))[..., 2:-2, 2:-2]
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        backbone.trunk.conv1.weight.data = 255 * std * backbone.trunk.conv1.weight.data.flip(1)
        found = backbone.trunk.conv1(backbone.normalise(image))[..., 2:-2, 2:-2]
    assert (found - wanted).abs().max() < 0.01 * wanted.abs().max()
    assert colour_warning(backbone, photos()) is None


def test_what_cannot_be_told(own: Backbone) -> None:
    own.trunk.conv1.weight.data = own.trunk.conv1.weight.data.flip(1)
    assert colour_warning(own, photos(1)) is None
    assert colour_warning(own, []) is None
    grey = trained(network().normalise(batch(photos(40, 1, grey=True))))
    grey.trunk.conv1.weight.data = grey.trunk.conv1.weight.data.flip(1)
    assert colour_warning(grey, photos(grey=True)) is None
    assert colour_warning(network(), photos()) is None
    for name in ("convnext_tiny", "vgg11"):
        assert first_layers(network(name)) is None


def test_the_first_layers_are_those_that_follow_each_other(own: Backbone) -> None:
    assert first_layers(own) == (own.trunk.conv1, own.trunk.bn1)
