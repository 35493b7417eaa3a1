import copy
import logging
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cyborgs.models import networks
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.momentum import target_of
from cyborgs.models.networks import build_network

SMALL = "timm:resnet10t"


def backbone(name: str = "resnet18", layers: list[str] | None = None, seed: int = 0, **kwargs: object) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(BackboneConfig(name=name, **kwargs), layers)  # type: ignore[arg-type]


def pictures(batch: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(5))


def by_hooks(network: nn.Module, names: tuple[str, ...], x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the named modules return, seen by hooks; cloned, since a later in-place ReLU may write into it."""
    seen: dict[str, torch.Tensor] = {}
    handles = [
        network.get_submodule(n).register_forward_hook(lambda _m, _i, out, n=n: seen.update({n: out.detach().clone()}))
        for n in names
    ]
    network(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ("name", "layers", "widths", "clustered"),
    [
        ("resnet18", ("layer2", "layer3", "layer4"), (128, 256, 512), "layer2.1"),
        ("resnet101", ("layer2", "layer3", "layer4"), (512, 1024, 2048), "layer2.3"),
        ("wide_resnet50_2", ("layer2", "layer3", "layer4"), (512, 1024, 2048), "layer2.3"),
        ("resnext50_32x4d", ("layer2", "layer3", "layer4"), (512, 1024, 2048), "layer2.3"),
        ("resnet50", ("layer2", "layer3", "layer4"), (512, 1024, 2048), "layer2.2"),
        ("convnext_tiny", ("features.3", "features.5", "features.7"), (192, 384, 768), "features.3.2"),
        ("mobilenet_v3_small", ("features.3", "features.8", "features.12"), (24, 48, 576), "features.3"),
        (SMALL, ("layer2", "layer3", "layer4"), (128, 256, 512), "layer2.0"),
        ("timm:convnext_atto", ("stages.1", "stages.2", "stages.3"), (80, 160, 320), "stages.1.blocks.1"),
    ],
)
def test_maps_of_many_networks(name: str, layers: tuple[str, ...], widths: tuple[int, ...], clustered: str) -> None:
    model = backbone(name)
    assert model.default_layers() == model.layers == layers
    assert model.default_clustered() == clustered
    assert tuple(model.widths[n] for n in layers) == widths
    assert tuple(model.strides[n] for n in (*layers, clustered)) == (8, 16, 32, 8)
    maps = model(pictures())
    assert list(maps) == list(layers)
    for name_, width, stride in zip(layers, widths, (8, 16, 32), strict=True):
        assert maps[name_].shape == (2, width, 64 // stride, 64 // stride)
    sum(m.square().mean() for m in maps.values()).backward()  # type: ignore[union-attr]
    # (timm's EfficientNets, absent here, keep a convolution behind the last stage, which gets none.)
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


def test_weights_that_are_read_without_a_call_stay() -> None:
    class Functional(nn.Module):
        """As Swin's attention: it reads its layers' weights and calls none of them."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(x, self.inner.weight, self.inner.bias)

    class Network(nn.Module):
        def __init__(self, functional: bool) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 8, stride=8)
            self.block = Functional() if functional else nn.Identity()
            self.auxiliary = nn.Linear(4, 2)
            self.fc = nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.block(self.stem(x)).mean(dim=(2, 3)))

    plain, functional = Network(False), Network(True)
    assert networks.drop_head(plain, *networks.probe(plain, "plain")) == ("auxiliary", "fc")
    assert networks.drop_head(functional, *networks.probe(functional, "functional")) == ("fc",)
    assert functional(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


def test_swin_runs_without_its_head() -> None:
    model = backbone("swin_t", ["permute"])
    assert model.head == ("head",)
    assert model(pictures())["permute"].shape == (2, 768, 2, 2)
    assert model.load_state_dict(model.state_dict()).missing_keys == []


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", SMALL])
@pytest.mark.parametrize("training", [True, False])
def test_every_map_is_what_its_module_returns(name: str, training: bool) -> None:
    model = backbone(name).train(training)
    # A stage, its last block, and what stands before an in-place ReLU: each trips torchvision's extractor.
    names = (*model.default_layers(), model.default_clustered())
    if name != "convnext_tiny":
        names = (*names, f"{model.default_clustered()}.bn2", "bn1")
    # No drawing of whole blocks to be dropped: the two passes would draw differently.
    for module in model.modules():
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    reference = by_hooks(copy.deepcopy(model).trunk, names, pictures())
    maps = model(pictures(), names)
    assert list(maps) == list(names)
    for n in names:
        assert torch.equal(maps[n], reference[n]), n


@pytest.mark.parametrize("training", [True, False])
def test_resnet50_is_torchvisions_bit_for_bit(training: bool) -> None:
    model = backbone("resnet50").train(training)
    reference = torchvision.models.resnet50()
    reference.fc = nn.Identity()
    reference.load_state_dict(model.weights(), strict=True)
    reference.train(training)
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.trunk.parameters()}
    x = pictures()
    expected = by_hooks(reference, ("layer2.2", "layer4"), x)
    maps = model(x, ("layer4", "layer2.2"))
    assert list(maps) == ["layer4", "layer2.2"]
    assert all(torch.equal(maps[n], expected[n]) for n in maps)
    # Running statistics moved alike, and only once.
    assert all(torch.equal(value, model.weights()[n]) for n, value in reference.state_dict().items())


def test_forward_stops_at_the_last_layer_it_needs() -> None:
    model = backbone()
    model(pictures(), ["layer2.1"])  # tracing calls every module
    ran: list[str] = []
    for n, module in model.trunk.named_modules():
        module.register_forward_hook(lambda _m, _i, _o, n=n: ran.append(n))
    model(pictures(), ["layer2.1"])["layer2.1"].mean().backward()
    assert "layer2.1.bn2" in ran
    assert not [n for n in ran if n.startswith(("layer3", "layer4", "avgpool", "fc"))]
    assert all((p.grad is None) == n.startswith(("layer3", "layer4")) for n, p in model.trunk.named_parameters())


def test_modes_reach_every_extractor_and_freezing_survives_a_new_one() -> None:
    model = backbone(SMALL)
    model(pictures())
    model.eval()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    model(pictures())
    model(pictures(), ["layer2"])
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    model.train()
    model.trunk.layer1.eval()  # type: ignore[union-attr]
    model(pictures(), ["layer3"])
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert any("layer2" in n for n in moved)
    assert not any("layer1" in n for n in moved)
    assert not model.trunk.layer1[0].bn1.training  # type: ignore[index, union-attr]


def test_parameters_are_registered_once_and_follow_a_conversion() -> None:
    model = backbone("convnext_tiny")
    model(pictures(1))
    keys = set(model.state_dict())
    model.double()
    assert model(pictures(1).double(), ["features.3"])["features.3"].dtype == torch.float64
    assert set(model.state_dict()) == keys == {f"trunk.{n}" for n in model.weights()}


def test_a_copy_shares_nothing() -> None:
    model = backbone(SMALL)
    model(pictures())
    target = target_of(model)
    assert torch.equal(target(pictures())["layer4"], model(pictures())["layer4"])
    assert not any(p.requires_grad for p in target.parameters())
    with torch.no_grad():
        for p in target.parameters():
            p.zero_()
    assert target(pictures())["layer4"].abs().max() == 0
    assert model(pictures())["layer4"].abs().max() > 0


def test_weights_come_from_the_callers_seed() -> None:
    first, second, other = backbone(seed=1).weights(), backbone(seed=1).weights(), backbone(seed=2).weights()
    assert all(torch.equal(v, second[n]) for n, v in first.items())
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalise(memory_format: torch.memory_format) -> None:
    model = backbone(SMALL, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8).to(memory_format=memory_format)
    result = model.normalise(images)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([0.5, 0.25, 2.0]).double()
    expected = (images.double() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        model.normalise(images.float())


def test_unknown_names_say_what_exists() -> None:
    with pytest.raises(ValueError, match=r"no layer 'res4'.*layer1, .*layer2.1, layer2, .*layer4"):
        backbone(layers=["layer2", "res4"])
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        backbone(SMALL)(pictures(), ["layer9"])
    with pytest.raises(ValueError, match=r"no network 'resnet5'; close to it: .*resnet50"):
        backbone("resnet5")
    with pytest.raises(ValueError, match=r"close to it: .*timm:resnet18"):
        backbone("timm:resnet81")
    with pytest.raises(ValueError, match="vit_b_32 cannot be run"):
        backbone("vit_b_32")
    with pytest.raises(ValueError, match="no map at stride 8, 16 or 32"):
        backbone("squeezenet1_1")
    assert backbone("squeezenet1_1", ["features.5"]).strides["features.5"] == 8  # 15 cells of 128 pixels
    with pytest.raises(ValueError, match=r"maps at strides \[\] alone"):
        backbone("squeezenet1_1", ["features.5"]).default_layers()


def test_init_from_files(tmp_path, caplog) -> None:
    torch.manual_seed(3)
    whole = torchvision.models.resnet18(num_classes=7)
    state = whole.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"model": {f"module.{n}": v for n, v in state.items()}, "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({n: v for n, v in state.items() if "tracked" not in n}, tmp_path / "plain.safetensors")
    for name in ("plain.pth", "wrapped.pth", "old.pth", "plain.safetensors"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            model = backbone(init=str(tmp_path / name))
        assert all(torch.equal(v, state[n]) for n, v in model.weights().items())
        assert "head: fc.bias, fc.weight" in caplog.text
    timm_state = build_network(SMALL).state_dict()
    save_file(timm_state, tmp_path / "timm.safetensors")
    model = backbone(SMALL, init=str(tmp_path / "timm.safetensors"))
    assert all(torch.equal(v, timm_state[n]) for n, v in model.weights().items())


def test_init_that_does_not_fit(tmp_path) -> None:
    state = torchvision.models.resnet18().state_dict()

    def attempt(changed: dict[str, torch.Tensor], message: str) -> None:
        torch.save(changed, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=message):
            backbone(init=str(tmp_path / "x.pth"))

    attempt(
        {n: v for n, v in state.items() if "layer4" not in n}, "25 of 120 tensors are missing.*layer4.0.conv1.weight"
    )
    attempt(
        {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, r"1 tensors.*conv1.weight: \(64, 1, 7, 7\), need \(64, 3"
    )
    attempt({**state, "layer5.weight": torch.zeros(1)}, "1 tensors too many, the first is layer5.weight")
    attempt({"conv1": 3}, "does not hold named tensors")  # type: ignore[dict-item]
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\nno weights")
    with pytest.raises(ValueError, match=r"picture.png: neither a safetensors file nor a torch file"):
        backbone(init=str(tmp_path / "picture.png"))
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        backbone(init=str(tmp_path / "absent.pth"))
    with pytest.raises(FileNotFoundError, match=r"no backbone.safetensors in this folder"):
        backbone(init=str(tmp_path))


def test_a_torch_file_that_would_run_code_is_refused(tmp_path) -> None:
    torch.save({"conv1.weight": copy.deepcopy}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="neither a safetensors file nor a torch file of weights alone"):
        backbone(init=str(tmp_path / "evil.pth"))


def test_init_from_the_library(monkeypatch) -> None:
    asked: list[object] = []

    def build(name: str, weights: str | bool = False) -> nn.Module:
        asked.append((name, weights))
        return build_network(name)

    monkeypatch.setattr("cyborgs.models.backbone.build_network", build)
    backbone("resnet18", init="torchvision:DEFAULT")
    backbone(SMALL, init="timm:pretrained")
    assert asked == [("resnet18", "DEFAULT"), (SMALL, "pretrained")]
    with pytest.raises(ValueError, match="has no weights for"):
        backbone("resnet18", init="timm:pretrained")
    with pytest.raises(ValueError, match="no weights 'V9' of resnet18; it has IMAGENET1K_V1, DEFAULT"):
        networks.build_network("resnet18", "V9")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_it_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    name, layers = "timm:test_resnet", ["layer2"]  # the deeper ones only take longer to compile
    plain, compiled = backbone(name, layers), backbone(name, layers, compile=True)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert list(plain.weights()) == list(compiled.weights())
    x = pictures()
    gradients = []
    for training in (True, False, True):
        maps, same = plain.train(training)(x), compiled.train(training)(x)
        for name, values in maps.items():
            torch.testing.assert_close(same[name], values, rtol=1e-5, atol=1e-5 * float(values.detach().abs().max()))
    for model, found in ((plain, maps), (compiled, same)):
        sum(m.square().mean() for m in found.values()).backward()  # type: ignore[union-attr]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert copy.deepcopy(compiled).state_dict().keys() == plain.state_dict().keys()
