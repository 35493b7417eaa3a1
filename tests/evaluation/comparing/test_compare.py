"""Several backbones through one protocol: cells, tables, sentences, pictures; and Figure 5b's curve."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyborgs.errors import UserError
from cyborgs.evaluation.comparing import comparison, curve, pictures, tables
from cyborgs.evaluation.comparing.cells import measure
from cyborgs.evaluation.comparing.compare import Compared, compare, sentence
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.settings.photos import KnnSettings
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import save_backbone, weights_hash
from tests.evaluation import toy_protocol
from tests.evaluation.protocols.contract import make_backbone
from tests.evaluation.toy_protocol import ToyData

LEVELS = {"run": 0.5, "imagenet": 0.48, "random": 0.1}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy protocol under the name of kNN."""
    monkeypatch.setattr(protocols, "module", lambda name: toy_protocol)
    toy_protocol.calls.clear()


def backbone_of(name: str, seed: int = 0) -> Backbone:
    network = make_backbone().eval()
    with torch.no_grad():
        next(iter(network.trunk.state_dict().values())).flatten()[0] = LEVELS[name]
    return network


def compared(tmp_path: Path | None = None, names: tuple[str, ...] = ("run", "random", "imagenet")) -> Compared:
    return compare(
        *("knn", names, backbone_of, ToyData(), KnnSettings(), Context()),
        seeds=(0, 1),
        shares=(0.1, 1.0),
        draws=100,
        store=tmp_path,
    )


def test_all_see_the_same_seeds_shares_and_draws(tmp_path: Path) -> None:
    found = compared(tmp_path)
    assert sorted(toy_protocol.calls) == sorted([(s, h) for s in (0, 1) for h in (0.1, 1.0)] * 3)
    assert found.value("run").value > found.value("random").value
    gain = found.less("run", "random")
    cells = found.cells
    assert gain.value == pytest.approx(
        np.mean([cells["run", 1.0, s].value - cells["random", 1.0, s].value for s in (0, 1)])
    )
    assert gain.low > 0
    assert found.metric == "top1"
    assert found.counts == {"train": 100, "test": 80}
    assert found.warnings == ("imagenet, run: level is high.",)


def test_what_is_finished_is_found_again(tmp_path: Path) -> None:
    first = compared(tmp_path)
    toy_protocol.calls.clear()
    next(iter(tmp_path.iterdir())).write_text("damaged")
    second = compared(tmp_path)
    assert len(toy_protocol.calls) == 1
    for key, cell in first.cells.items():
        assert (second.cells[key].value, second.cells[key].drawn) == (cell.value, cell.drawn)
    assert second.less("run", "imagenet") == first.less("run", "imagenet")


def test_a_cell_says_what_is_not_defined(tmp_path: Path) -> None:
    for _ in range(2):  # measured, then read
        cell = measure(*("knn", backbone_of("run"), ToyData(), KnnSettings(), Context()), draws=10, store=tmp_path)
        assert np.isnan(cell.figures["nothing"])
    assert cell.found


def test_other_weights_settings_data_or_seed_are_other_cells(tmp_path: Path) -> None:
    run = backbone_of("run")
    for network, data, settings, context in (
        (run, ToyData(), KnnSettings(), Context()),
        (backbone_of("random"), ToyData(), KnnSettings(), Context()),
        (run, ToyData("other"), KnnSettings(), Context()),
        (run, ToyData(), KnnSettings(size=96), Context()),
        (run, ToyData(), KnnSettings(), Context(seed=1)),
        (run, ToyData(), KnnSettings(), Context(share=0.5)),
    ):
        measure("knn", network, data, settings, context, draws=5, store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


def test_random_weights_are_drawn_for_each_seed() -> None:
    asked = []

    def opened(name: str, seed: int) -> Backbone:
        asked.append((name, seed))
        return backbone_of(name)

    compare("knn", ("run", "random"), opened, ToyData(), KnnSettings(), Context(), seeds=(0, 1), draws=5)
    assert asked == [("run", 0), ("random", 0), ("random", 1)]


def test_the_sentence_says_what_was_gained() -> None:
    found = compared()
    gain, other = found.less("run", "random"), found.less("run", "imagenet")
    assert other.low <= 0 <= other.high
    assert sentence(found, "pretraining on your 1,200 photos") == (
        f"Pretraining on your 1,200 photos gained {100 * gain.value:.1f} points top-1 accuracy "
        f"({100 * gain.low:.1f} to {100 * gain.high:.1f}) over random, no difference that shows against imagenet: "
        f"{100 * other.value:+.1f} points top-1 accuracy ({100 * other.low:.1f} to {100 * other.high:.1f})."
    )


def test_a_loss_is_called_one() -> None:
    found = compared(names=("random", "run"))
    assert sentence(found).startswith("Random lost ")
    assert "against run" in sentence(found)
    alone = compared(names=("run",))
    assert sentence(alone).startswith("run: ")
    assert "top-1 accuracy" in sentence(alone)


def test_bad_requests() -> None:
    for names, words in (((), "at least one"), (("run", "run"), "none twice")):
        with pytest.raises(UserError, match=words):
            compare("knn", names, backbone_of, ToyData(), KnnSettings(), Context())
    with pytest.raises(UserError, match="shares of the labels"):
        compare("knn", ("run",), backbone_of, ToyData(), KnnSettings(), Context(), shares=(0.0,))
    with pytest.raises(UserError, match="no protocol is named 'no'"):
        compare("no", ("run",), backbone_of, ToyData(), KnnSettings(), Context())


def test_files(tmp_path: Path) -> None:
    found = compared()
    said = sentence(found)
    about = {"seed": 0, "standing": "knn, preset small: not the paper's protocol."}
    comparison.write(found, said, KnnSettings(), about, "facts", tmp_path)
    document = json.loads((tmp_path / "compare.json").read_text())
    assert document["sentence"] == said
    assert len(document["rows"]) == 6
    row = next(r for r in document["rows"] if r["backbone"] == "random" and r["share"] == 1)
    assert row["first_less_it"]["value"] == pytest.approx(found.less("run", "random").value)
    assert row["value"] == pytest.approx(found.value("random").value)
    text = (tmp_path / "compare.md").read_text()
    assert text.startswith(f"{about['standing']}\n\n{said}\n")
    assert row["seeds"][0]["settings_used"]["layer"] == "layer4"
    assert text.count("\n| ") >= 7
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.width > 800
    assert (tmp_path / "compare.png").read_bytes() == pictures.of_comparison(found, said)


def test_the_curve_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "snapshots").mkdir(parents=True)
    with pytest.raises(UserError, match=r"recipe\.yaml is missing"):
        curve.snapshots_of(run)
    from cyborgs.recipes import RECIPES
    from cyborgs.runs import recipe_file

    (run / "recipe.yaml").write_text(recipe_file.to_text(RECIPES["demo"]()))
    with pytest.raises(UserError, match="--snapshots"):
        curve.snapshots_of(run)
    for epoch, name in ((0, "random"), (5, "imagenet"), (12, "run")):
        save_backbone(backbone_of(name), run / f"snapshots/epoch-{epoch:04d}.safetensors", {})
    save_backbone(backbone_of("run"), run / "backbone.safetensors", {})
    (run / "snapshots" / ".epoch-0001.safetensors.tmp").write_bytes(b"")
    epochs = list(curve.snapshots_of(run))
    assert epochs == sorted({0, 5, 12, RECIPES["demo"]().epochs})
    names = ("knn", "linear-classification")
    found = curve.curve_of_run(run, data=names, protocols=names, seeds=2, draws=20, out=tmp_path / "out")
    assert list(found) == list(names)
    values = [found["knn"].cells[epoch, 1.0, 0].value for epoch in found["knn"].backbones]
    assert values[0] < values[-1]
    document = json.loads((tmp_path / "out/curve.json").read_text())
    assert [(p["protocol"], p["epoch"]) for p in document["points"]] == [(n, e) for e in epochs for n in names]
    assert [p["value"] for p in document["points"][::2]] == [found["knn"].value(f"epoch {e}").value for e in epochs]
    assert Image.open(io.BytesIO((tmp_path / "out/curve.png").read_bytes())).height > 600
    assert tables.of_curve(found)[1][:3] == ["0", "knn", "top-1 accuracy"]


def test_a_hash_of_weights() -> None:
    a, b = backbone_of("run"), backbone_of("run")
    assert weights_hash(a) == weights_hash(b)
    assert weights_hash(a.train()) == weights_hash(b)
    with torch.no_grad():
        next(m for m in b.modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean += 1
    assert weights_hash(a) != weights_hash(b)
