"""Checkpoints are complete or absent, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cyborgs.engine.checkpoint import CheckpointError, Checkpoints, load_networks


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return module, optimizer


def save(folder: Path, step: int = 7, keep: int = 2) -> Checkpoints:
    module, optimizer = trained()
    checkpoints = Checkpoints(folder, keep)
    checkpoints.save(step, module.state_dict(), optimizer.state_dict(), {"progress": {"step": step}})
    return checkpoints


def test_round_trip(tmp_path: Path) -> None:
    module, optimizer = trained()
    loaded = save(tmp_path / "c").load()
    assert loaded is not None
    assert loaded.state == {"progress": {"step": 7}}
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_networks(fresh, loaded)
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), fresh.state_dict().values(), strict=True)
    )
    again = torch.optim.SGD(fresh.parameters(), lr=1.0)
    again.load_state_dict(loaded.optimizer)
    assert again.param_groups[0]["lr"] == 0.1
    for index, entry in optimizer.state_dict()["state"].items():
        assert torch.equal(entry["momentum_buffer"], again.state_dict()["state"][index]["momentum_buffer"])


def test_none_before_the_first(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "c").load() is None


def test_the_newest_is_loaded_and_old_ones_go(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoints = save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-000002", "step-000010"]
    assert checkpoints.load().state["progress"]["step"] == 10  # type: ignore[union-attr]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        checkpoints = save(tmp_path, step)
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-1000000", "step-1000001"}
    (tmp_path / "last").unlink()
    assert checkpoints.load().state["progress"]["step"] == 1_000_001  # type: ignore[union-attr]


def test_the_same_step_is_replaced_by_renaming(tmp_path: Path) -> None:
    save(tmp_path, 3)
    checkpoints = save(tmp_path, 3)
    assert {p.name for p in tmp_path.iterdir()} == {"last", "step-000003"}
    # as a kill between the two renames leaves it
    (tmp_path / "step-000003").rename(tmp_path / ".step-000003.old")
    assert checkpoints.load().state["progress"]["step"] == 3  # type: ignore[union-attr]


def test_an_unfinished_one_is_never_read(tmp_path: Path) -> None:
    checkpoints = save(tmp_path, 3)
    aside = tmp_path / ".step-000004.tmp"
    aside.mkdir()
    (aside / "state.json").write_text("{")
    assert checkpoints.load().state["progress"]["step"] == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["state.json", "networks.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_cut_file_is_named(tmp_path: Path, name: str, share: float) -> None:
    checkpoints = save(tmp_path)
    file = tmp_path / "step-000007" / name
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    what = r"is damaged: no JSON" if name == "state.json" else "is cut short"
    with pytest.raises(CheckpointError, match=rf"step-000007/{name}: {what}.* No other checkpoint is intact"):
        checkpoints.load()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    checkpoints = save(tmp_path)
    (tmp_path / "step-000007" / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step-000007/optimizer\.safetensors: is missing"):
        checkpoints.load()


def test_another_network_is_refused(tmp_path: Path) -> None:
    loaded = save(tmp_path).load()
    assert loaded is not None
    with pytest.raises(CheckpointError, match=r"another network.*0\.weight"):
        load_networks(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)), loaded)
