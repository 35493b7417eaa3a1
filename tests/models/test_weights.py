import copy
import json

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cyborgs.errors import DiskError
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.weights import load_backbone, read_metadata, save_backbone

NAME = "resnet18"
RECIPE = {"name": "small", "epochs": 3, "milestones": [0.5, 0.75]}


@pytest.fixture(scope="module")
def model() -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneConfig(name=NAME, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)), ["layer3", "layer2.1"])


def test_a_round_trip_gives_the_same_network(model: Backbone, tmp_path) -> None:
    save_backbone(model, tmp_path / "backbone.safetensors", RECIPE)
    assert [p.name for p in tmp_path.iterdir()] == ["backbone.safetensors"]
    state = torch.random.get_rng_state()
    for path in (tmp_path, tmp_path / "backbone.safetensors", str(tmp_path)):
        loaded = load_backbone(path)
        assert not loaded.training
        assert loaded.config == model.config
        x = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
        model.eval()
        expected = model(model.normalise(x))
        maps = loaded(loaded.normalise(x))
        assert list(maps) == ["layer3", "layer2.1"]
        assert all(torch.equal(maps[n], expected[n]) for n in maps)
        torch.random.set_rng_state(state)
    load_backbone(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert list(load_backbone(tmp_path, ["layer4"])(torch.zeros(1, 3, 64, 64))) == ["layer4"]
    metadata = read_metadata(tmp_path)
    assert metadata["recipe"] == RECIPE
    assert metadata["architecture"] == NAME
    # And a new run may start from it.
    started = Backbone(BackboneConfig(name=NAME, init=str(tmp_path)))
    assert all(torch.equal(v, model.weights()[n]) for n, v in started.weights().items())
    with pytest.raises(ValueError, match=r"holds resnet18, backbone.name is resnet34"):
        Backbone(BackboneConfig(name="resnet34", init=str(tmp_path)))


def test_the_file_loads_strictly_into_torchvision(model: Backbone, tmp_path) -> None:
    from safetensors.torch import load_file

    save_backbone(model, tmp_path / "b.safetensors", {})
    reference = torchvision.models.resnet18()
    reference.fc = nn.Identity()
    reference.load_state_dict(load_file(tmp_path / "b.safetensors"), strict=True)
    x = torch.randn(1, 3, 64, 64)
    pooled = load_backbone(tmp_path / "b.safetensors", ["layer4"])(x)["layer4"].mean(dim=(2, 3))
    torch.testing.assert_close(reference.eval()(x), pooled, rtol=1e-6, atol=1e-6)


def test_equal_input_gives_equal_bytes(model: Backbone, tmp_path) -> None:
    # safetensors writes several metadata entries in another order each time, even within a process.
    contents = set()
    for i, recipe in enumerate([{"b": 1, "a": (2, 3)}, {"a": [2, 3], "b": 1}] * 3):
        other = copy.deepcopy(model).to(memory_format=torch.channels_last) if i else model
        save_backbone(other, tmp_path / f"{i}.safetensors", recipe)
        contents.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(contents) == 1


def test_a_failed_write_leaves_the_old_file(model: Backbone, tmp_path, monkeypatch) -> None:
    path = tmp_path / "backbone.safetensors"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("cyborgs.files.os.fsync", fail)
    with pytest.raises(DiskError, match=r"backbone.safetensors: cannot be written: disk full"):
        save_backbone(model, path, {})
    assert path.read_bytes() == b"old"


def test_wrong_files_are_named(model: Backbone, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent: no such file"):
        load_backbone(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no backbone.safetensors in this folder"):
        load_backbone(tmp_path)
    (tmp_path / "text").write_text("not weights at all")
    with pytest.raises(ValueError, match=r"text: not a safetensors file"):
        load_backbone(tmp_path / "text")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign.safetensors: not written by cyborgs"):
        load_backbone(tmp_path / "foreign.safetensors")

    def with_metadata(**changes: object) -> None:
        metadata = {"format": 1, "architecture": NAME, "mean": [0, 0, 0], "std": [1, 1, 1], "layers": ["layer2"]}
        save_file(model.weights(), tmp_path / "x.safetensors", {"cyborgs": json.dumps({**metadata, **changes})})

    for changes, message in (
        ({"format": 2}, "format 2 is newer"),
        ({"architecture": "resnet99"}, "no network 'resnet99'"),
        ({"architecture": "resnet34"}, r"not the weights of resnet34: 80 of 216 tensors are missing"),
        ({"layers": ["layer7"]}, "no layer 'layer7'"),
    ):
        with_metadata(**changes)
        with pytest.raises(ValueError, match=message):
            load_backbone(tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.safetensors: not a safetensors file, or a damaged one"):
        load_backbone(tmp_path / "cut.safetensors")
