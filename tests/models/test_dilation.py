"""Dilation beside torchvision's own, and beside what it means."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from cyborgs.errors import UserError
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.dilation import dilate


def backbone(name: str, seed: int = 0) -> Backbone:
    """Random weights, and statistics that are not all 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = Backbone(BackboneConfig(name=name)).eval()
        for m in found.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
                m.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return found


def pictures(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("stride", "replaced", "size"), [(8, [False, True, True], (65, 97)), (16, [False, False, True], (64, 64))]
)
def test_bottlenecks_are_torchvisions(stride: int, replaced: list[bool], size: tuple[int, int]) -> None:
    ours = backbone("resnet50")
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=replaced)
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.weights())
    theirs.eval()
    seen: dict[str, Tensor] = {}
    for name in ("layer3", "layer4"):
        theirs.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    dilate(ours, stride)
    with torch.no_grad():
        theirs(pictures(*size))
        maps = ours(pictures(*size), layers=("layer3", "layer4"))
    for name, wanted in seen.items():
        assert torch.equal(maps[name], wanted)


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_every_second_cell_is_the_strided_networks(size: tuple[int, int]) -> None:
    """What dilation in the place of stride means: the same filters at every cell, not at every second one."""
    strided = backbone("resnet18").double()
    layers = ("layer2", "layer3", "layer4")
    x = pictures(*size).double()
    with torch.no_grad():
        wanted = strided(x, layers=layers)
        for stride in (16, 8):
            dilated = copy.deepcopy(strided)
            dilate(dilated, stride)
            maps = dilated(x, layers=layers)
            for layer, before in (("layer2", 8), ("layer3", 16), ("layer4", 32)):
                step = max(1, before // stride)
                torch.testing.assert_close(maps[layer][:, :, ::step, ::step], wanted[layer], rtol=1e-9, atol=1e-10)


def test_basic_blocks_by_hand() -> None:
    ours = backbone("resnet18")
    w = ours.weights()

    def norm(x: Tensor, at: str) -> Tensor:
        shape = (1, -1, 1, 1)
        scaled = (x - w[f"{at}.running_mean"].view(shape)) / (w[f"{at}.running_var"].view(shape) + 1e-5).sqrt()
        return scaled * w[f"{at}.weight"].view(shape) + w[f"{at}.bias"].view(shape)

    def block(x: Tensor, at: str, first: int, second: int) -> Tensor:
        y = F.relu(norm(F.conv2d(x, w[f"{at}.conv1.weight"], padding=first, dilation=first), f"{at}.bn1"))
        y = norm(F.conv2d(y, w[f"{at}.conv2.weight"], padding=second, dilation=second), f"{at}.bn2")
        if f"{at}.downsample.0.weight" in w:
            x = norm(F.conv2d(x, w[f"{at}.downsample.0.weight"]), f"{at}.downsample.1")
        return F.relu(x + y)

    with torch.no_grad():
        x = ours(pictures(64, 48), layers=("layer2",))["layer2"]
        for at, first, second in (("3.0", 1, 2), ("3.1", 2, 2), ("4.0", 2, 4), ("4.1", 4, 4)):
            x = block(x, f"layer{at}", first, second)
        dilate(ours, 8)
        found = ours(pictures(64, 48), layers=("layer4",))["layer4"]
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-5)


def test_strides_are_measured_anew_and_stages_stay() -> None:
    ours = backbone("resnet18")
    before = ours.widths
    assert ours(pictures(64, 64))["layer4"].shape[-1] == 2  # traced before
    kept = copy.deepcopy(ours)
    dilate(ours, 8)
    assert [ours.strides[f"layer{k}"] for k in (1, 2, 3, 4)] == [4, 8, 8, 8]
    assert ours.widths == before
    assert ours.default_layers() == ("layer2", "layer3", "layer4")
    assert ours.default_clustered() == "layer2.1"
    assert ours(pictures(64, 64))["layer4"].shape[-1] == 8
    assert kept(pictures(64, 64))["layer4"].shape[-1] == 2
    assert kept.strides["layer4"] == 32


def test_groups_and_other_widths() -> None:
    """ResNeXt's blocks are torchvision's bottlenecks with groups."""
    ours = backbone("resnext50_32x4d")
    dilate(ours, 8)
    assert ours(pictures(64, 64))["layer4"].shape[-1] == 8


def test_other_networks() -> None:
    other = backbone("timm:test_resnet")
    weights = {name: value.clone() for name, value in other.weights().items()}
    dilate(other, 32)
    assert all(torch.equal(weights[name], value) for name, value in other.weights().items())
    with pytest.raises(UserError, match=r"output_stride: 8 .* timm:test_resnet is none\. Set output_stride 32"):
        dilate(other, 8)
    with pytest.raises(ValueError, match="output_stride is 8, 16 or 32, got 4"):
        dilate(other, 4)
