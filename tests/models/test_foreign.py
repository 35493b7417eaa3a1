"""Checkpoints in the layouts of other people's code give the weights that were put into them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from cyborgs.errors import UserError
from cyborgs.models import foreign
from cyborgs.models.config import BackboneConfig
from cyborgs.models.named import open_named

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet() -> State:
    torch.manual_seed(5)
    return torchvision.models.resnet18(num_classes=7).state_dict()


def trunk(state: State) -> State:
    return {n: v for n, v in state.items() if not n.startswith("fc.")}


def under(prefix: str, state: State) -> State:
    return {prefix + n: v for n, v in state.items()}


def other(state: State) -> State:
    return {n: v + 1 for n, v in trunk(state).items()}


def row(state: State) -> State:
    return {f"{foreign.ROW[n.partition('.')[0]]}.{n.partition('.')[2]}": v for n, v in trunk(state).items()}


HEAD = {"weight": torch.ones(3, 5), "bias": torch.ones(3)}
LAYOUTS: dict[str, tuple[Callable[[State], Any], str, list[str]]] = {
    "moco": (
        lambda s: {
            "epoch": 199,
            "arch": "resnet18",
            "state_dict": under("module.encoder_k.", other(s))
            | {"module.encoder_k.fc.bias": s["fc.bias"]}
            | under("module.encoder_q.", trunk(s))
            | under("module.encoder_q.fc.", HEAD)
            | {"module.queue": torch.ones(4, 8), "module.queue_ptr": torch.ones(1)},
            "optimizer": {
                "state": {i: {"momentum_buffer": s["bn1.bias"]} for i in range(9)},
                "param_groups": [{"lr": 0.1}],
            },
        },
        "state_dict.module.encoder_q.",
        [
            "fc.weight",
            "queue_ptr",
            "state_dict.module.encoder_k.: 120 named as those taken, fc.bias;",
            "N.momentum_buffer (9)",
        ],
    ),
    "openselfsup": (
        lambda s: {
            "meta": {"epoch": 3},
            "state_dict": under("backbone.", trunk(s))
            | under("encoder_k.0.", other(s))
            | under("encoder_q.1.mlp.0.", HEAD),
        },
        "state_dict.backbone.",
        ["encoder_k.0.: 120 named as those taken", "mlp.0.weight"],
    ),
    "densecl": (
        lambda s: {"state_dict": under("encoder_k.0.", other(s)) | under("encoder_q.0.", trunk(s))},
        "state_dict.encoder_q.0.",
        [],
    ),
    "byol": (
        lambda s: under("target_network.encoder.", other(s)) | under("online_network.encoder.", trunk(s)),
        "online_network.encoder.",
        [],
    ),
    "detcon": (
        lambda s: {"model": under("target_encoder.", other(s)) | under("online_encoder.", trunk(s))},
        "model.online_encoder.",
        [],
    ),
    "vissl": (
        lambda s: {
            "classy_state_dict": {
                "base_model": {"model": {"trunk": under("_feature_blocks.", trunk(s)), "heads": under("0.clf.", HEAD)}}
            }
        },
        "classy_state_dict.base_model.model.trunk._feature_blocks.",
        ["0.clf.weight"],
    ),
    "virtex": (
        lambda s: {
            "model": under("visual.cnn.", trunk(s)) | under("textual.output.", HEAD),
            "optimizer": {"param_groups": []},
            "iteration": 500000,
        },
        "model.visual.cnn.",
        ["output.weight"],
    ),
    "dino": (
        lambda s: {
            "teacher": under("backbone.", other(s)) | under("head.mlp.", HEAD),
            "student": under("module.backbone.", trunk(s)) | under("module.head.mlp.", HEAD),
            "args": argparse.Namespace(arch="resnet18", lr=0.1),
        },
        "student.module.backbone.",
        ["head.mlp.weight"],
    ),
    "simsiam": (
        lambda s: {"state_dict": under("module.encoder.", trunk(s)) | under("module.predictor.0.", HEAD)},
        "state_dict.module.encoder.",
        ["predictor.0.weight"],
    ),
    "swav": (lambda s: under("module.", trunk(s)) | under("module.prototypes.", HEAD), "module.", ["weight"]),
    "solo-learn": (
        lambda s: {
            "pytorch-lightning_version": "1.5",
            "state_dict": under("momentum_backbone.", other(s)) | under("backbone.", trunk(s)),
        },
        "state_dict.backbone.",
        [],
    ),
    "lightly": (
        lambda s: {"state_dict": under("backbone_momentum.", row(other(s))) | under("backbone.", row(s))},
        "state_dict.backbone.",
        [],
    ),
    "torchvision": (dict, "", ["fc.weight"]),
}


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, resnet: State, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make, prefix, told = LAYOUTS[layout]
    file = tmp_path / f"{layout}.pth.tar"
    torch.save(make(resnet), file)
    with caplog.at_level(logging.WARNING):
        named = open_named(file)
    assert named.backbone.config == BackboneConfig(name="resnet18")
    assert same(named.backbone.weights(), trunk(resnet))
    assert not named.backbone.training
    assert (named.weights, named.recipe) == (file.name, None)
    tensors = foreign.read_tensors(file)
    found = foreign.find_backbone(tensors, named.backbone.weights(), "x")
    assert found.prefix == prefix
    # Every tensor is taken or listed.
    listed = [start + rest for start, names in found.passed.items() for rest in names]
    assert sorted(listed) == sorted(
        n for n in tensors if n.removeprefix(prefix) not in _names(layout, resnet, prefix, n)
    )
    said = caplog.messages[0] if caplog.messages else ""
    assert all(words in said for words in told), said
    assert len(caplog.messages) <= 1


def _names(layout: str, state: State, prefix: str, name: str) -> set[str]:
    if not name.startswith(prefix):
        return set()
    return set(row(state)) if layout == "lightly" else set(trunk(state))


def test_a_name_before_the_file_and_imagenet(resnet: State, tmp_path: Path) -> None:
    torch.save(LAYOUTS["moco"][0](resnet), tmp_path / "moco.pth")
    save_file({n: v.contiguous() for n, v in resnet.items()}, tmp_path / "r.safetensors")
    for text, weights in (
        (f"resnet18:{tmp_path}/moco.pth", "resnet18:moco.pth"),
        (f"torchvision:resnet18:{tmp_path}/moco.pth", "resnet18:moco.pth"),
        (f"imagenet:{tmp_path}/r.safetensors", "imagenet:r.safetensors"),
        (f"{tmp_path}/r.safetensors", "r.safetensors"),
    ):
        named = open_named(text)
        assert same(named.backbone.weights(), trunk(resnet))
        assert named.weights == weights
        assert named.hash is not None


@pytest.mark.parametrize("name", sorted(set(foreign.RESNETS.values())))
def test_the_architecture_follows_from_the_shapes(name: str) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
    assert foreign.architecture_of(under("a.b.", state)) == name
    assert foreign.architecture_of(under("a.b.", row(state))) == name


def test_networks_that_are_no_resnet_have_no_name() -> None:
    with torch.device("meta"):
        for name in ("convnext_tiny", "vgg11", "densenet121"):
            assert foreign.architecture_of(torchvision.models.get_model(name).state_dict()) is None
    assert foreign.architecture_of({}) is None


def _drop(s: State, name: str) -> State:
    return {n: v for n, v in s.items() if n != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: _drop(s, "layer3.0.bn1.running_mean"), "m.layer3.0.bn1.running_mean is missing, the first of 1"),
        (lambda s: s | {"layer4.1.conv2.weight": torch.ones(8, 8, 3, 3)}, r"m.layer4.1.conv2.weight is \(8, 8, 3, 3\), need"),
        (lambda s: s | {"layer4.1.conv9.weight": torch.ones(8)}, "m.layer4.1.conv9.weight is too many"),
        (lambda s: {"conv1.weight": s["conv1.weight"]}, "few of its 1 tensors fit"),
    ],
    ids=["missing", "shape", "too many", "nothing"],
)  # fmt: skip
def test_another_architecture(change: Callable[[State], State], words: str, resnet: State, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(under("m.", change(trunk(resnet))), file)
    with pytest.raises(
        UserError, match=f"w.pth: not the weights of resnet18: a checkpoint with another architecture.*{words}"
    ):
        open_named(f"resnet18:{file}")


def test_another_networks_file(resnet: State, tmp_path: Path) -> None:
    torch.save(under("m.", resnet), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"not the weights of resnet34: a checkpoint with another architecture"):
        open_named(f"resnet34:{tmp_path}/w.pth")
    with torch.random.fork_rng():
        torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "w34.pth")
    with pytest.raises(UserError, match=r"layer1\.2\.bn1\.bias is too many"):
        open_named(f"resnet18:{tmp_path}/w34.pth")


class Anything:
    pass


def test_files_that_hold_more_than_weights(tmp_path: Path) -> None:
    for name, value, words in (
        ("code.pth", {"state_dict": {"a": torch.ones(1)}, "x": Anything()}, "torch file of weights alone"),
        ("none.pth", {"epoch": 3}, "does not hold named tensors"),
        ("list.pth", [1, 2], "does not hold named tensors"),
    ):
        torch.save(value, tmp_path / name)
        with pytest.raises(UserError, match=words):
            open_named(tmp_path / name)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="neither a safetensors file nor a torch file"):
        open_named(tmp_path / "text.pth")
    with pytest.raises(UserError, match=r"none.pth: no such file of weights for an ImageNet network"):
        open_named("imagenet:none.pth")
