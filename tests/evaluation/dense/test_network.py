"""Losses and gradients of the networks beside plain torch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyborgs.evaluation.dense.network import Fcn, FcnHead, FrozenProbe, cross_entropy
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig

CLASSES = 4


def backbone(name: str = "timm:test_resnet") -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Backbone(BackboneConfig(name=name)).train()


def batch(side: int = 64, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, CLASSES, (2, side, side), generator=generator).to(torch.uint8)
    targets[:, :5] = 255
    return images, targets


def plain_loss(logits: Tensor, targets: Tensor, align_corners: bool) -> Tensor:
    """Minus the mean log of the softmax at the true class, over labelled pixels, one by one."""
    large = F.interpolate(logits, targets.shape[1:], mode="bilinear", align_corners=align_corners)
    logs = large - large.exp().sum(1, keepdim=True).log()
    kept = targets != 255
    picked = logs.gather(1, targets.long().clamp_max(CLASSES - 1)[:, None])[:, 0]
    return -picked[kept].mean()


def plain_block(x: Tensor, weights: dict[str, Tensor], at: str) -> Tensor:
    x = F.conv2d(x, weights[f"{at}.0.weight"], padding=1)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    x = (x - mean) / (var + 1e-5).sqrt()
    return F.relu(x * weights[f"{at}.1.weight"].view(1, -1, 1, 1) + weights[f"{at}.1.bias"].view(1, -1, 1, 1))


@pytest.mark.parametrize("align_corners", [True, False])
def test_losses_and_gradients_are_those_of_plain_torch(align_corners: bool) -> None:
    given = backbone()
    fcn = Fcn(given, CLASSES, output_stride=32, channels=6, align_corners=align_corners).train()
    for m in fcn.modules():
        if isinstance(m, nn.Dropout2d):
            m.p = 0.0
    images, targets = batch()
    losses = fcn.losses(images, targets)
    assert tuple(losses) == fcn.names == ("segmentation", "auxiliary")
    sum(losses.values(), torch.zeros(())).backward()
    found = {name: p.grad for name, p in fcn.named_parameters()}

    other = copy.deepcopy(fcn)
    other.zero_grad()
    seen: dict[str, Tensor] = {}
    for name in given.default_layers()[-2:]:
        other.backbone.trunk.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: out.clone()})
        )
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (given.config.mean, given.config.std))
    other.backbone.trunk((images / 255 - mean) / std)
    before, last = (seen[name] for name in given.default_layers()[-2:])
    w = dict(other.named_parameters())
    y = plain_block(plain_block(last, w, "head.body.0"), w, "head.body.1")
    y = plain_block(torch.cat([last, y], 1), w, "head.joined")
    main = plain_loss(F.conv2d(y, w["head.classes.weight"], w["head.classes.bias"]), targets, align_corners)
    z = F.conv2d(plain_block(before, w, "auxiliary.0"), w["auxiliary.2.weight"], w["auxiliary.2.bias"])
    auxiliary = 0.4 * plain_loss(z, targets, align_corners)
    torch.testing.assert_close(losses["segmentation"], main, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses["auxiliary"], auxiliary, rtol=1e-5, atol=1e-6)
    (main + auxiliary).backward()
    for name, p in other.named_parameters():
        assert p.grad is not None, name
        torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-5)


def test_dropout_takes_whole_channels_in_training_alone() -> None:
    head = FcnHead(3, 64, 2)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []
    head.dropout.register_forward_hook(lambda _m, _i, out: seen.append(out))
    torch.manual_seed(0)
    head.train()(x)
    gone = (seen[0] == 0).all(dim=3).all(dim=2)
    assert 0 < gone.float().mean() < 0.5
    assert torch.equal(head.eval()(x), head(x))


def test_no_auxiliary_head() -> None:
    fcn = Fcn(backbone(), CLASSES, output_stride=32, channels=4, auxiliary_weight=0.0)
    assert fcn.names == ("segmentation",)
    assert tuple(fcn.losses(*batch())) == ("segmentation",)


@pytest.mark.parametrize(("stride", "cells"), [(8, 8), (16, 4), (32, 2)])
def test_logits_at_each_stride(stride: int, cells: int) -> None:
    fcn = Fcn(backbone("resnet18"), CLASSES, output_stride=stride, channels=4).eval()
    assert fcn.logits(batch()[0]).shape == (2, CLASSES, cells, cells)


def test_a_batch_without_a_labelled_pixel() -> None:
    """Loss 0 and gradient 0, no NaN."""
    logits = torch.randn(2, CLASSES, 3, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 8, 8), 255, dtype=torch.uint8), 255, True)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))  # type: ignore[arg-type]


def test_a_label_to_ignore_that_is_a_class() -> None:
    logits = torch.randn(1, CLASSES, 2, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    wanted = F.cross_entropy(logits, targets.long(), ignore_index=0)
    torch.testing.assert_close(cross_entropy(logits, targets, 0, True), wanted)


def test_groups_hold_every_parameter_once() -> None:
    fcn = Fcn(backbone(), CLASSES, output_stride=32, channels=4)
    groups = fcn.groups(10.0)
    assert [g.get("lr_scale", 1.0) for g in groups] == [1.0, 10.0]
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in fcn.parameters())


def test_weights_come_from_the_seed_and_the_backbone_stays() -> None:
    given = backbone()
    given.requires_grad_(False)
    before = copy.deepcopy(given.state_dict())
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    networks = [Fcn(given, CLASSES, output_stride=32, channels=4, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(2), wanted)
    one, same, other = (torch.cat([p.flatten() for p in n.head.parameters()]) for n in networks)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    networks[0].losses(*batch())["segmentation"].backward()
    assert all(p.requires_grad for p in networks[0].parameters())
    assert not any(p.requires_grad for p in given.parameters())
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())
    assert given.training


def test_enlarging_the_logits_is_enlarging_the_map() -> None:
    """A 1x1 convolution and bilinear interpolation commute."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 7, 5, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 7, 1, 1, dtype=torch.float64, generator=generator)
    bias = torch.randn(3, dtype=torch.float64, generator=generator)
    for align in (True, False):
        how = {"size": (41, 47), "mode": "bilinear", "align_corners": align}
        first = F.interpolate(F.conv2d(maps, weight, bias), **how)  # type: ignore[arg-type]
        last = F.conv2d(F.interpolate(maps, **how), weight, bias)  # type: ignore[arg-type]
        torch.testing.assert_close(first, last, rtol=1e-12, atol=1e-12)


def test_the_probe_trains_its_convolution_alone() -> None:
    given = backbone()
    layer = given.default_clustered()
    probe = FrozenProbe(given, layer, CLASSES).train()
    assert not any(m.training for m in probe.backbone.modules())
    assert probe.head.training
    before = copy.deepcopy(probe.backbone.state_dict())
    images, targets = batch()
    loss = probe.losses(images, targets)["segmentation"]
    loss.backward()
    assert all(torch.equal(before[name], value) for name, value in probe.backbone.state_dict().items())
    assert all(p.grad is None for p in probe.backbone.parameters())
    held = [id(p) for g in probe.groups(1.0) for p in g["params"]]
    assert held == [id(p) for p in probe.head.parameters()]

    frozen = copy.deepcopy(given).eval()
    with torch.no_grad():
        maps = frozen(frozen.normalise(images), layers=[layer])[layer]
    large = F.interpolate(maps, (64, 64), mode="bilinear", align_corners=True)
    head = copy.deepcopy(probe.head)
    head.zero_grad()
    kept = targets != 255
    wanted = F.cross_entropy(head(large).permute(0, 2, 3, 1)[kept], targets[kept].long())
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(probe.head.weight.grad, head.weight.grad, rtol=1e-4, atol=1e-6)
