"""``cyborgs evaluate PROTOCOL`` as a user types it, through a protocol that takes no time, and through a real one."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cyborgs.cli import main
from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError
from cyborgs.evaluation.comparing import evaluate as evaluating
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.protocols.catalogue import ENTRIES
from cyborgs.features import colour_order
from cyborgs.models.named import open_named
from cyborgs.models.weights import save_backbone, weights_hash
from tests.evaluation import toy_protocol
from tests.evaluation.protocols.contract import make_backbone, make_pixels

NETWORK = "random:timm:test_resnet"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(protocols, "module", lambda name: toy_protocol)
    toy_protocol.calls.clear()
    return toy_protocol


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_backbone(make_backbone(seed=4), tmp_path / "backbone.safetensors", {})
    return tmp_path / "backbone.safetensors"


def evaluate(*argv: object) -> int:
    return main(["evaluate", *map(str, argv)])


def test_random_weights_beside_it(toy: Any, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ("voc07", "--backbone", weights, "--data", "d", "--preset", "small", "--out", out, "--draws", "50")
    assert evaluate(*command, "--seed", "3") == 0
    said = capsys.readouterr().out
    assert said.startswith("voc07, preset small: not the paper's protocol.\n")
    for words in ("random", "Over random weights", "100 train, 80 test", "Published by others", "CYBORGS COCO 86.9"):
        assert words in " ".join(said.split())
    assert toy.calls == [(3, 1.0), (3, 1.0)]
    found = json.loads((out / "result.json").read_text())
    assert (found["protocol"], found["preset"], found["metric"], found["seed"]) == ("voc07", "small", "top1", 3)
    assert found["settings_are_published"] is False
    assert found["settings_from"].startswith("VirTex")
    assert found["settings"]["images"] == 200
    assert found["weights_xxh64"] == weights_hash(open_named(weights).backbone)
    assert {"torch", "cyborgs", "python"} <= found["versions"].keys()
    assert found["pretrained"]["low"] <= found["pretrained"]["value"] <= found["pretrained"]["high"]
    assert found["random"]["counts"] == {"train": 100, "test": 80}
    assert found["pretrained"]["figures"]["nothing"] is None


def test_papers_settings_and_single_changes(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("voc07", "--backbone", NETWORK, "--data", "d", "--out", tmp_path, "--draws", "9", "--preset=paper")
    own = " (its settings on other photos: 100 and 80, not 5,011 and 4,952)"
    for options, words in (
        ((), f"preset paper: not the paper's protocol{own}."),
        (("--costs", "0.5", "2"), "preset paper with changes: not the paper's protocol."),
        (("--share", "0.5"), "preset paper, 50% of the labels: not the paper's protocol."),
        (("--preset", "small", "--images", "9"), "preset small with changes: not the paper's protocol."),
    ):
        assert evaluate(*command, *options) == 0
        found = json.loads((tmp_path / "result.json").read_text())
        assert found["settings_are_published"] is False
        assert capsys.readouterr().out.splitlines()[0] == found["standing"] == f"voc07, {words}"
        assert "random" not in found
    assert found["settings"]["images"] == 9
    monkeypatch.setattr(toy, "COUNTS", {"train": 5011, "test": 4952})
    for options in ((), ("--variant", "openselfsup")):
        assert evaluate(*command, *options) == 0
        found = json.loads((tmp_path / "result.json").read_text())
        assert (found["settings_are_published"], found["standing"]) == (True, "")
        assert "not the paper's" not in capsys.readouterr().out


def test_published_lists_of_imagenet() -> None:
    settings = ENTRIES["imagenet-1pct"].settings
    named = replace(settings, labels="lists/1percent.txt")
    assert protocols.is_published("imagenet-1pct", named, {"train": 12_811, "test": 50_000})
    assert not protocols.is_published("imagenet-1pct", settings, {"train": 1_281_167, "test": 50_000})
    assert "other photos" in protocols.standing("imagenet-1pct", "paper", named, {"train": 900, "test": 50_000})


def test_what_was_chosen_is_said(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("voc07", "--backbone", NETWORK, "--data", "d", "--out", tmp_path, "--draws", "9") == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["pretrained"]["settings_used"]["layer"] == "layer4"
    assert "costs" not in found["pretrained"]["settings_used"]
    assert "\nUsed: layer layer4.\n" in capsys.readouterr().out


def test_a_protocol_of_ours_says_so(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("dense-probe", "--backbone", NETWORK, "--data", "d", "--out", tmp_path, "--draws", "9") == 0
    said = capsys.readouterr().out
    assert said.startswith("dense-probe, preset small: not the paper's protocol, but one of ours.\n")
    found = json.loads((tmp_path / "result.json").read_text())
    assert (found["settings_are_published"], found["settings_from"]) == (False, "ours")


def test_share_of_the_labels(toy: Any) -> None:
    assert evaluate("voc07", "--backbone", NETWORK, "--data", "d", "--share", "0.25", "--draws", "9") == 0
    # Its settings have a share of their own, of that name.
    assert evaluate("imagenet-1pct", "--backbone", NETWORK, "--data", "d", "--share", "0.5", "--draws", "9") == 0
    assert toy.calls == [(0, 0.25), (0, 1.0)]


def test_no_random_baseline(toy: Any, weights: Path) -> None:
    assert evaluate("knn", "--backbone", weights, "--data", "d", "--no-random-baseline", "--draws", "9") == 0
    assert len(toy.calls) == 1


def test_weights_of_bgr_are_warned_of(
    toy: Any, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Photos:
        def __len__(self) -> int:
            return 40

        def read(self, i: int) -> Any:
            return np.full((4, 4, 3), i, np.uint8)

    class Data(toy_protocol.ToyData):
        train = Photos()

    seen: list[int] = []

    def warning(backbone: Any, photos: Any) -> str:
        seen.extend(int(p[0, 0, 0]) for p in photos)
        return "trained on BGR."

    monkeypatch.setattr(toy, "open_data", lambda *_: Data("d"))
    monkeypatch.setattr(colour_order, "colour_warning", warning)
    assert evaluate("knn", "--backbone", weights, "--data", "d", "--out", tmp_path, "--draws", "9") == 0
    assert (len(seen), seen[0], seen[-1]) == (16, 0, 37)
    assert f"Note ({weights}): trained on BGR." in " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    found = json.loads((tmp_path / "result.json").read_text())
    assert "trained on BGR." in found["pretrained"]["warnings"]
    assert "trained on BGR." not in found["random"]["warnings"]


def test_a_real_protocol(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = make_pixels(tmp_path / "pixels"), tmp_path / "out"
    command = ("dense-probe", "--backbone", weights, "--data", data, "--preset", "small", "--epochs", "2")
    assert evaluate(*command, "--min-steps", "5", "--out", out, "--draws", "20") == 0
    found = json.loads((out / "result.json").read_text())
    assert found["metric"] == "miou"
    rows = list(csv.reader((out / "per_class.csv").read_text().splitlines()))
    assert rows[0] == ["class", "pretrained", "random"]
    assert [row[0] for row in rows[1:]] == list(found["pretrained"]["per_class"])
    assert np.mean([float(row[1]) for row in rows[1:]]) == pytest.approx(found["pretrained"]["value"], abs=1e-5)
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["voc08"], 2, "no protocol is named 'voc08'"),
        (["dense-probe", "--backbone", NETWORK, "--data", "nowhere"], 1, "nowhere"),
        (["voc07", "--backbone", "nowhere", "--data", "{data}"], 1, "nowhere"),
        (["dense-probe", "--backbone", "{nan}", "--data", "{data}"], 1, "hold NaN or infinity, in "),
        (["dense-probe", "--backbone", NETWORK, "--data", "{data}", "--share", "0"], 1, "--share: need a share"),
        (["voc07", "--backbone", NETWORK, "--data", "{data}", "--variant", "other"], 2, "variant"),
        (["voc07", "--data", "d"], 2, "--backbone"),
        (["--backbone", "b", "--train", "a", "--val", "b"], 2, "there is no --train: the protocol is named first"),
    ],
)
def test_mistakes(argv: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_pixels(tmp_path / "pixels", 4)
    bad = make_backbone()
    with torch.no_grad():
        next(iter(bad.trunk.parameters())).fill_(float("nan"))
    save_backbone(bad, tmp_path / "nan.safetensors", {})
    words = [word.format(data=data, nan=tmp_path / "nan.safetensors") for word in argv]
    assert evaluate(*words) == code
    captured = capsys.readouterr()
    assert message in captured.err + captured.out


def test_several_processes_are_refused(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert evaluate("coco-stuff", "--backbone", NETWORK, "--data", "d") == 1
    assert "run in one process. Start this without torchrun." in capsys.readouterr().err


def test_data_is_opened_before_any_network(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise UserError("list.txt: missing.")

    monkeypatch.setattr(toy, "open_data", missing)
    monkeypatch.setattr(evaluating, "Opener", lambda *_: pytest.fail("a network was opened"))
    assert evaluate("voc07", "--backbone", NETWORK, "--data", "d") == 1


@pytest.mark.parametrize(("signal", "code"), [(2, 130), (15, 143)])
def test_stopped_in_a_training(
    signal: int,
    code: int,
    toy: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: Any) -> Any:
        raise Stopped(signal, 12)

    monkeypatch.setattr(toy, "evaluate", stop)
    command = ("coco-stuff", "--backbone", NETWORK, "--data", "d")
    assert evaluate(*command) == code
    assert "Nothing is kept without --out" in capsys.readouterr().err
    assert evaluate(*command, "--out", tmp_path) == code
    said = capsys.readouterr().err
    assert "the checkpoint of step 12 is written" in said
    assert f"evaluate coco-stuff --backbone {NETWORK} --data d --out {tmp_path}\n" in said
    assert "--resume" not in said


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--help") == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said and entry.about in said for name, entry in ENTRIES.items())
    for name, words in (("imagenet-1pct", "--training.weight-decay"), ("voc07", "--difficult-in-training")):
        assert evaluate(name, "--help") == 0
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert said.count("--share FLOAT") == 1
        assert words in said
        assert "imagenet:FILE" in said


def test_every_protocol_parses_with_both_presets() -> None:
    from cyborgs.cli.evaluate import parse

    for name, entry in ENTRIES.items():
        for preset, settings in (("paper", entry.settings), ("small", entry.small)):
            asked, _, found = parse(name, ["--backbone", "b", "--data", "d", f"--preset={preset}"])
            assert (asked["preset"], found) == (preset, settings)
        assert parse(name, ["--backbone", "b", "--data", "d"])[2] == entry.small


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from cyborgs.cli import main; main(['evaluate', '--help']); main(['evaluate', 'cityscapes', '--help']);"
        "sys.exit(1 if {'torch', 'torchvision', 'timm', 'sklearn', 'scipy'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
