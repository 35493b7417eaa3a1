"""The command line: help, messages for every kind of bad input, and each command once as a real process."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.cli import main
from cyborgs.runs import recipe_file
from cyborgs.runs.pretrain import pretrain
from tests.conftest import make_photos, tiny_byol, tiny_recipe

TINY = "tiny.yaml"


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / TINY
    path.write_text(recipe_file.to_text(tiny_recipe(epochs=2)))
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    make_photos(folder / "photos")
    pretrain(tiny_recipe(epochs=2), data=folder / "photos", out=folder / "run", stream=io.StringIO())
    return folder


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(list(argv))
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert "Traceback" not in text
    return code, " ".join(text.split())


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cyborgs", *map(str, argv)], capture_output=True, text=True, check=False, timeout=120
    )


def test_help_is_quick_and_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    result = run("--help")
    assert time.perf_counter() - start < 3  # the goal is a second
    assert result.returncode == 0
    for command in ("pretrain", "segment", "evaluate", "report", "doctor", "demo"):
        assert command in result.stdout
        assert said(capsys, command, "--help")[0] == 0


def test_pretrain_help_names_recipes_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    _, text = said(capsys, "pretrain", "cyborgs-coco", "--help")
    for word in ("cyborgs-coco", "small", "--method.warmup-epochs", "--views.size", "--epochs", "(default: 800)"):
        assert word in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dance"], "no command is named 'dance'"),
        (["pretrain", "big", "--data", "x", "--out", "y"], "no recipe is named 'big'"),
        (["pretrain", "no.yaml", "--data", "x", "--out", "y"], "no.yaml: no such recipe file"),
        (["pretrain", "--data", "x"], "--out"),
        (["pretrain", "--data", "x", "--out", "y", "--epochs", "many"], "--epochs"),
        (["pretrain", "--data", "x", "--out", "y", "--epochs", "0"], "epochs: need at least 1, got 0"),
        (
            ["pretrain", "--data", "x", "--out", "y", "--masks.source", "magic"],
            "('bootstrap', 'grid', 'whole', 'felzenszwalb'",
        ),
        (["pretrain", "--data", "x", "--out", "y", "--method.clusters", "1", "9"], "need 2 <= low <= high <= 256"),
        (["pretrain", "--data", "x", "--out", "y", "--views.size", "100"], "need a multiple of 32, got 100"),
        (["pretrain", "--data", "missing", "--out", "y"], "missing: no such folder"),
        (["segment", "x", "--backbone", "missing", "--out", "y"], "missing: no such file or folder"),
        (["segment", "x", "--backbone", "resnet50:no.pth", "--out", "y"], "no.pth: no such file of weights"),
        (["segment", "x", "--out", "y"], "clusters needs a network"),
        (["segment", "x", "--source", "magic", "--out", "y"], "felzenszwalb"),
        (["segment", "x", "--checkpoint", "y", "--out", "z"], "there is no --checkpoint: weights are --backbone."),
        (["masks", "quality", "x", "--truth", "y", "--images=z"], "there is no --images: photos are --data."),
        (["masks", "gallery", "x", "--images", "y", "--out", "z.html"], "there is no --images: photos are --data."),
        (["segment", "x", "--source", "grid", "--out", "y", "--clusters", "3"], "grid has none"),
        (["segment", "x", "--source", "grid", "--out", "y", "--grid", "16"], "need 1 to 15"),
        (["segment", "x", "--source", "ground-truth", "--out", "y"], "truth: ground-truth needs annotations"),
        (["segment", "x", "--backbone", "y", "--out", "y", "--export", "png"], "label-studio"),
        (["evaluate", "knn", "--backbone", "y", "--data", "missing"], "missing: no such folder"),
        (["report", "missing"], "missing: holds no run"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)
def test_mistakes_are_named(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = said(capsys, *argv)
    assert code != 0
    assert message in text
    assert not (tmp_path / "y" / "recipe.yaml").exists()


def test_bad_folders_are_named(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, text = said(capsys, "pretrain", tiny, "--data", str(empty), "--out", str(tmp_path / "a"))
    assert code == 1
    assert str(empty) in text
    (empty / "note.txt").write_text("no photo here")
    (empty / "fake.jpg").write_text("no picture")
    (empty / "zero.png").write_bytes(b"")
    code, text = said(capsys, "pretrain", tiny, "--data", str(empty), "--out", str(tmp_path / "b"))
    assert code == 1
    assert "fake.jpg" in text


def test_an_unknown_network_or_layer_is_named(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("pretrain", tiny, "--data", str(photos), "--out")
    code, text = said(capsys, *base, str(tmp_path / "a"), "--backbone.name", "resnet19")
    assert code == 1
    assert "resnet18" in text
    code, text = said(capsys, *base, str(tmp_path / "b"), "--method.fused-layers", "layer7")
    assert code == 1
    assert "layer7" in text
    assert "layer2" in text


def test_init_that_does_not_fit_is_named(
    tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("pretrain", tiny, "--data", str(photos), "--out", str(tmp_path / "a"))
    code, text = said(capsys, *base, "--init", str(tmp_path / "none.safetensors"))
    assert code == 1
    assert "none.safetensors" in text


def test_dry_run_starts_nothing(tiny: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    code, text = said(capsys, "pretrain", tiny, "--data", str(photos), "--out", str(out), "--dry-run", "--epochs", "5")
    assert code == 0
    assert "epochs: 5" in text
    assert "photos: 22" in text
    assert "steps: 2 an epoch, 10 in all" in text
    assert "masks are made at epochs: 1, 2, 4" in text
    assert not out.exists()


def test_pretrain_as_a_process(tiny: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = run("pretrain", tiny, "--data", photos, "--out", out, "--workers", "1")
    assert first.returncode == 0, first.stderr
    assert "backbone.safetensors is written" in first.stderr
    assert "\x1b" not in first.stderr  # no control characters where it is no terminal
    assert "\r" not in first.stderr
    assert len(first.stderr.splitlines()) < 12


def test_resume_takes_the_runs_recipe(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("pretrain", "--data", str(finished / "photos"), "--out", str(finished / "run"))
    code, text = said(capsys, *base, "--resume")
    assert code == 0
    assert "this run is finished" in text
    code, text = said(capsys, *base, "--resume", "--method.kappa", "3.0")
    assert code == 1
    assert "method.kappa: 10.0 -> 3.0" in text
    code, text = said(capsys, "pretrain", "cyborgs-coco", *base[1:], "--resume")
    assert code == 1
    assert "begun with the recipe 'tiny'" in text
    code, text = said(capsys, *base)
    assert code == 1
    assert "exists and is not empty. Give --resume" in text


def test_segment_as_a_process(finished: Path, tmp_path: Path) -> None:
    result = run("segment", finished / "photos", "--backbone", finished / "run", "--out", tmp_path, "--clusters", "5")
    assert result.returncode == 0, result.stderr
    labels = sorted((tmp_path / "labels").rglob("*.png"))
    assert len(labels) == 22
    for path in labels:
        with Image.open(path) as mask, Image.open(finished / "photos" / path.name) as photo:
            assert mask.size == photo.size
            assert np.asarray(mask).max() < 5
    assert len(list((tmp_path / "overlays").iterdir())) == 22


def test_segment_with_several_numbers_and_formats(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["segment", str(finished / "photos"), "--backbone", str(finished / "run"), "--out", str(tmp_path / "m")]
    more = ["--clusters", "3", "5", "--export", "panoptic", "--no-overlays", "--resolution", "nearest"]
    code, text = said(capsys, *base, *more)
    assert code == 0
    assert "22 photos in 3 clusters" in text
    assert sorted(p.name for p in (tmp_path / "m/k5").iterdir()) == [
        *("centroids.safetensors", "labels", "palette.json", "panoptic", "panoptic.json"),
        *("segmentation.json", "segments.csv"),
    ]
    code, text = said(capsys, *base, *more)
    assert code == 0
    assert text.count("found, made by an earlier start") == 2
    code, text = said(capsys, *base, *more, "--seed", "4")
    assert code == 1
    assert "seed: 0 -> 4" in text
    assert "--overwrite" in text
    code, text = said(capsys, *base[:2], "--source", "grid", "--grid", "3", "--out", str(tmp_path / "g"))
    assert code == 0
    assert "22 photos in regions of grid" in text


def test_evaluate_as_a_process(finished: Path, tmp_path: Path) -> None:
    for name, numbers in (("train", range(4)), ("val", range(4, 8))):
        lines = []
        for i in numbers:
            photo = finished / "photos" / f"photo{i:02d}.png"
            with Image.open(photo) as image:
                grey = np.asarray(image.convert("L"))
            Image.fromarray((grey > 127).astype(np.uint8)).save(tmp_path / f"truth{i}.png")
            lines.append(f"{photo} {tmp_path / f'truth{i}.png'}")
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    command = ("evaluate", "dense-probe", "--backbone", finished / "run", "--data", tmp_path, "--layers", "layer4")
    result = run(*command, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    assert all(0 <= figures[who]["value"] <= 1 for who in ("pretrained", "random"))
    assert figures["pretrained"]["counts"] == {"train": 4, "test": 4, "classes": 2}


def test_report_as_a_process(finished: Path) -> None:
    result = run("report", finished / "run", "--data", finished / "photos")
    assert result.returncode == 0, result.stderr
    page = (finished / "run" / "report.html").read_text()
    assert result.stdout.strip().endswith("report.html")
    assert page.count("data:image/") > 5


def test_report_of_other_photos_is_refused(finished: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "photo00.png").unlink()
    code, text = said(capsys, "report", str(finished / "run"), "--data", str(photos))
    assert code == 1
    assert "not the photos of" in text


@pytest.mark.slow
def test_ctrl_c_leaves_with_130_and_says_how_to_go_on(photos: Path, tmp_path: Path) -> None:
    import signal

    recipe = tmp_path / TINY
    recipe.write_text(recipe_file.to_text(tiny_byol(epochs=500)))
    out = tmp_path / "run"
    argv = [sys.executable, "-m", "cyborgs", "pretrain", str(recipe), "--data", str(photos), "--out", str(out)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "--resume" in error
    assert "Traceback" not in error
    assert (out / "checkpoints" / "last").is_file()
