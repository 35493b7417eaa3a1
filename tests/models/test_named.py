from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xxhash
from safetensors.torch import save_file

from cyborgs.errors import UserError
from cyborgs.models import backbone as backbones
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.named import file_hash, open_named
from cyborgs.models.weights import save_backbone

NAME = "timm:test_resnet"


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(3)
    return Backbone(BackboneConfig(name=NAME)).eval()


def same(a: Backbone, b: Backbone) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.weights().values(), b.weights().values(), strict=True))


def test_a_run_and_its_file(backbone: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "backbone.safetensors"
    save_backbone(backbone, file, {"name": "x"})
    for text in (tmp_path, file, str(file)):
        named = open_named(text)
        assert same(named.backbone, backbone)
        assert not named.backbone.training
        assert (named.weights, named.hash) == ("backbone.safetensors", xxhash.xxh64_hexdigest(file.read_bytes()))
        assert named.recipe == {"name": "x"}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_librarys_network_with_a_file(backbone: Backbone, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a:b.{suffix}"  # colons of a path belong to it
    state = {name: value.clone() for name, value in backbone.weights().items()}
    if suffix == "pth":
        torch.save({"state_dict": state}, file)
    else:
        save_file(state, file)
    named = open_named(f"{NAME}:{file}")
    assert same(named.backbone, backbone)
    assert (named.weights, named.hash, named.recipe) == (f"{NAME}:a:b.{suffix}", file_hash(file), None)


def test_random_weights_are_those_of_the_seed_and_nobody_elses() -> None:
    state = torch.random.get_rng_state()
    one, again, other = (open_named(f"random:{NAME}", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(one.backbone, again.backbone)
    assert not same(one.backbone, other.backbone)
    assert (one.weights, one.hash) == (f"random:{NAME}", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing", "missing: no such file or folder. Give a run's folder"),
        ("resnet50", "random:NAME"),
        ("resnet50:", "no such file or folder"),
        ("resnet50:none.pth", "none.pth: no such file of weights for resnet50"),
        ("random:resnet51", "no network 'resnet51'; close to it: "),
        ("random:", "no such file of weights|no such file or folder"),
    ],
)
def test_mistakes_say_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_named(text)
    assert "NAME:FILE" in str(caught.value)


def test_weights_without_a_name_or_of_another_network(backbone: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(dict(backbone.weights()), file)
    with pytest.raises(UserError, match=r"needs its network's name: NAME:.*w\.pth"):
        open_named(file)
    with pytest.raises(UserError, match=r"not the weights of timm:test_resnet2|no network|tensors"):
        open_named(f"resnet18:{file}")
    save_file(dict(backbone.weights()), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="needs its network's name"):
        open_named(tmp_path / "w.safetensors")


def test_random_alone_is_the_network_beside_it() -> None:
    like = BackboneConfig(name=NAME, init="elsewhere.pth", std=(0.5, 0.5, 0.5))
    named = open_named("random", seed=1, like=like)
    assert named.backbone.config == BackboneConfig(name=NAME, std=(0.5, 0.5, 0.5))
    assert same(named.backbone, open_named(f"random:{NAME}", seed=1).backbone)
    assert (named.weights, named.hash) == ("random", None)
    assert open_named("random").backbone.config == BackboneConfig(name="resnet50")


@pytest.mark.parametrize(
    ("text", "name", "asked"),
    [("timm:test_resnet", NAME, "pretrained"), ("torchvision:resnet18", "resnet18", "DEFAULT")],
)
def test_a_librarys_own_weights(text: str, name: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build = backbones.build_network
    seen: list[tuple[str, str | bool]] = []

    def fetched(name: str, weights: str | bool = False) -> torch.nn.Module:
        seen.append((name, weights))
        return build(name)

    state = torch.random.get_rng_state()
    monkeypatch.setattr(backbones, "build_network", fetched)
    named = open_named(text)
    assert seen == [(name, asked)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (named.weights, named.hash) == (text, None)
    assert named.backbone.config.name == name

    def offline(name: str, weights: str | bool = False) -> torch.nn.Module:
        raise OSError("no route\nto host")

    monkeypatch.setattr(backbones, "build_network", offline)
    with pytest.raises(
        UserError,
        match=rf"own weights are not in its cache and could not be fetched \(no route\)\. Give a file of them: {name}:FILE",
    ):
        open_named(text)


def test_a_library_without_the_network() -> None:
    for text in ("torchvision:resnet51", "timm:no_such_network"):
        with pytest.raises(UserError, match=r"no network .* \(Allowed: "):
            open_named(text)
