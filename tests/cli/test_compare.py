"""``cyborgs compare`` and ``cyborgs curve`` as a user types them, through a protocol that takes no time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from cyborgs.cli import main
from cyborgs.errors import UserError
from cyborgs.evaluation.comparing.compare import short_names
from cyborgs.evaluation.comparing.comparison import photos_of_run
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.sets.layouts import guess_protocol
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import save_backbone
from cyborgs.recipes import RECIPES
from cyborgs.runs import recipe_file
from tests.evaluation import toy_protocol
from tests.evaluation.protocols.contract import make_backbone, make_classes

RANDOM = "random:timm:test_resnet"


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "module", lambda name: toy_protocol)
    toy_protocol.calls.clear()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as far as these commands look into it."""
    folder = tmp_path / "run"
    (folder / "snapshots").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_file.to_text(RECIPES["demo"]()))
    (folder / "images.csv").write_text("index,name,height,width,hash\n" + "0,a.jpg,1,1,0\n" * 1200)
    for epoch, level in ((0, 0.1), (6, 0.5)):
        save_backbone(_network(level), folder / f"snapshots/epoch-{epoch:04d}.safetensors", {})
    save_backbone(_network(0.6), folder / "backbone.safetensors", {})
    return folder


def _network(level: float) -> Backbone:
    network = make_backbone().eval()
    with torch.no_grad():
        next(iter(network.trunk.state_dict().values())).flatten()[0] = level
    return network


def test_compare(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_classes(tmp_path / "labelled")
    out = tmp_path / "out"
    command = ["compare", "--data", str(data), "--backbone", str(run), "random", "--out", str(out), "--seeds", "2"]
    command += ["--shares", "10", "100", "--draws", "50"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.startswith("linear-classification, preset small, 10% of the labels: not the paper's protocol.\n")
    assert "Pretraining on your 1,200 photos gained " in said.out
    assert "over random" in said.out
    assert said.err.count("(found)") == 0
    assert sorted(p.name for p in out.iterdir()) == ["cells", "compare.json", "compare.md", "compare.png"]
    document = json.loads((out / "compare.json").read_text())
    assert document["protocol"] == "linear-classification"
    assert document["settings"]["solver"] == "logistic"
    assert [(r["backbone"], r["share"]) for r in document["rows"]] == [
        (b, s) for s in (0.1, 1.0) for b in (str(run), "random")
    ]
    assert main(command) == 0
    assert capsys.readouterr().err.count("(found)") == 8


def test_compare_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(make_classes(tmp_path / "labelled"))
    for extra, words in (
        (["--data", str(tmp_path / "no"), "--backbone", RANDOM], "no such file or folder"),
        (["--data", data, "--backbone", RANDOM, "--protocol", "no"], "no protocol is named 'no'"),
        (["--data", data, "--backbone", RANDOM, "--seeds", "0"], "--seeds: need at least 1"),
        (["--data", data, "--backbone", RANDOM, "--shares", "0"], "--shares"),
        (["--data", data, "--backbone", RANDOM, RANDOM], "none twice"),
        (["--data", data, "--backbone", "nowhere"], "nowhere"),
    ):
        assert main(["compare", "--out", str(tmp_path / "out"), *extra]) == 1
        assert words in capsys.readouterr().err
    assert main(["compare", "--data", data, "--backbone", RANDOM, "--ignore", "0"]) == 2
    assert "--ignore" in capsys.readouterr().err
    assert main(["compare", "--backbone", RANDOM]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["compare", "--data", data, "--backbones", RANDOM]) == 2
    assert "there is no --backbones: backbones are given by --backbone, one or several" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_curve(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["curve", str(run), "--data", "a", "b", "--draws", "20"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "coco-stuff, preset small: not the paper's protocol.\ncoco-stuff-probe, preset small: not" in said
    document = json.loads((run / "curve/curve.json").read_text())
    epochs = [0, 6, RECIPES["demo"]().epochs]
    assert [(p["epoch"], p["protocol"]) for p in document["points"]] == [
        (e, p) for e in epochs for p in ("coco-stuff", "coco-stuff-probe")
    ]
    assert document["protocols"]["coco-stuff-probe"]["data"] == "b"
    assert document["protocols"]["coco-stuff"]["standing"] == "coco-stuff, preset small: not the paper's protocol."
    assert document["protocols"]["coco-stuff"]["settings"]["crop"] == 128
    assert (document["seeds"], document["draws"]) == ([0], 20)
    assert (run / "curve/curve.png").stat().st_size > 1000


def test_curve_says_what_is_wrong(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for extra, words in (
        ([str(tmp_path), "--data", "a"], "recipe.yaml is missing"),
        ([str(run), "--data", "a", "b", "c"], "one for each of 2 protocols"),
        ([str(run), "--data", "a", "--protocols", "no"], "no protocol is named 'no'"),
        ([str(run), "--data", "a", "--seeds", "0"], "--seeds"),
        ([str(run), "--data", "a", "b", "--protocols", "knn", "knn"], "knn is there twice"),
    ):
        assert main(["curve", *extra]) == 1
        assert words in capsys.readouterr().err


def test_help_loads_no_torch_and_names_the_backbones(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in (("compare", "imagenet:FILE"), ("curve", "snapshots")):
        assert main([command, "--help"]) == 0
        assert words in capsys.readouterr().out


def test_the_protocol_follows_from_the_data(tmp_path: Path) -> None:
    folders = make_classes(tmp_path / "classes")
    assert guess_protocol(str(folders)) == "linear-classification"
    pairs = tmp_path / "pairs"
    (pairs / "images").mkdir(parents=True)
    (pairs / "labels").mkdir()
    assert guess_protocol(str(pairs)) == "dense-probe"
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("# photos\na/x.jpg b/x.png\n")
    assert guess_protocol(str(lists)) == "dense-probe"
    (lists / "train.txt").write_text("Faces/x.jpg\n")
    assert guess_protocol(str(lists)) == "linear-classification"
    (lists / "train.txt").write_text("x.jpg Faces\n")
    assert guess_protocol(str(lists)) == "linear-classification"
    (lists / "data.yaml").write_text("train: {}\n")
    assert guess_protocol(str(lists / "data.yaml")) == "dense-probe"


@pytest.mark.parametrize("labels", ["labels", "masks", "annotations"])
def test_photos_beside_label_maps_are_no_classes(tmp_path: Path, labels: str) -> None:
    for name in ("images", labels):
        for part in ("train", "val"):
            (tmp_path / name / part).mkdir(parents=True)
    assert guess_protocol(str(tmp_path)) == "dense-probe"


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("leftImg8bit/train", "gtFine/train"), "Cityscapes. Say --protocol cityscapes."),
        (("ADEChallengeData2016/images/training",), "ADE20K. Say --protocol ade20k."),
        (("images/training", "annotations/training"), "ADE20K. Say --protocol ade20k."),
        (("VOCdevkit/VOC2007/ImageSets/Main",), "VOC. Say --protocol voc07 or voc07-knn."),
        (("ImageSets/Main", "SegmentationClass"), "VOC. Say --protocol voc07 or voc07-knn or voc-segmentation."),
        (("JPEGImages", "SegmentationClass"), "VOC. Say --protocol voc-segmentation."),
        (("images", "annotations", "imageLists"), "COCO-Stuff-10k. Say --protocol coco-stuff or coco-stuff-probe."),
        (("images/val2017", "stuffthingmaps/val2017"), "COCO-Stuff-164k. Say --protocol coco-stuff-27."),
    ],
)
def test_a_published_set_is_left_to_its_own_protocol(tmp_path: Path, folders: tuple[str, ...], words: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=re.escape(f"has the layout of {words}")):
        guess_protocol(str(tmp_path))


def test_photos_of_a_run(run: Path, tmp_path: Path) -> None:
    assert photos_of_run(str(run)) == 1200
    assert photos_of_run(str(tmp_path)) is None


def test_a_label_that_counts_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for protocol in ("dense-probe", "folder-segmentation", "coco-stuff-probe", "clustering"):
        command = ["compare", "--data", str(tmp_path), "--backbone", RANDOM, "--protocol", protocol]
        assert main([*command, "--ignore", "11", "--out", str(out), "--draws", "5"]) == 0
        settings = json.loads((out / "compare.json").read_text())["settings"]
        assert settings["ignore"] == 11


def test_settings_of_the_protocol_are_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = str(make_classes(tmp_path / "labelled")), tmp_path / "out"
    command = ["compare", "--data", data, "--backbone", RANDOM, "--out", str(out), "--draws", "5"]
    for options, wanted, first in (
        ([], {"solver": "logistic", "size": 96}, "preset small: not the paper's protocol."),
        (["--size", "64"], {"solver": "logistic", "size": 64}, "preset small with changes: not the paper's protocol."),
        (["--preset", "paper"], {"solver": "sgd", "size": 224}, "preset paper: not the paper's protocol (its settings"),
    ):
        assert main([*command, *options]) == 0
        assert wanted.items() <= json.loads((out / "compare.json").read_text())["settings"].items()
        assert first in capsys.readouterr().out.splitlines()[0]
    assert main(["compare", "--protocol", "camvid", "--help"]) == 0
    assert "--training.iterations" in capsys.readouterr().out


def test_short_names() -> None:
    assert short_names(["runs/first", "random", "imagenet:w/r50.pth"]) == {
        "runs/first": "first",
        "random": "random",
        "imagenet:w/r50.pth": "r50.pth",
    }
    assert short_names(["a/run", "b/run"]) == {"a/run": "a/run", "b/run": "b/run"}
