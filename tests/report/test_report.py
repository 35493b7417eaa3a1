"""The page: what is on it, that it stands alone, that anybody can read it, that it is small."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cyborgs.data.scenes import write_label_png
from cyborgs.errors import DiskError
from cyborgs.features.neighbours import Crop, Neighbours
from cyborgs.masks.store import GenerationWriter
from cyborgs.recipes import RECIPES
from cyborgs.report.history import History
from cyborgs.report.pictures import Drawn, Row, fitted, spread
from cyborgs.report.render import render
from cyborgs.report.summary import probe_rows, summary
from cyborgs.runs import recipe_file
from cyborgs.structures import LabelMap
from tests.report.fakes import Noise, Page, Photos, make_run, write_metrics


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "truth" / "a").mkdir(parents=True)
    for i in range(2):
        write_label_png(tmp_path / f"truth/a/p{i}.png", np.full((60, 80), i, np.uint8))
    return make_run(tmp_path / "first")


QUALITY = {
    "classes": ["wall", "grass"],
    "k": 2,
    "overlaps": {"0": [0.25, None, float("nan")], "1": [0.5, 0.75, 0.5]},
    "rows": [
        {"name": "random weights", "epoch": 0, "miou": 0.1, "accuracy": 0.2},
        {"name": "generation 0", "epoch": 1, "miou": 0.15, "best_overlap": 0.25},
        {"name": "end", "epoch": 6, "miou": 0.3, "accuracy": 0.5, "best_overlap": 0.25},
        {"name": "5 x 5 grid", "miou": 0.05, "best_overlap": 0.4, "baseline": True},
    ],
}
PROBE = {
    "train": 5,
    "val": 2,
    "rows": [
        {
            "name": n,
            "layers": ["layer2", "layer4"],
            "seed": s,
            "miou": m + s / 100,
            "accuracy": 0.5,
            "baseline": n == "random",
        }
        for n, m in (("random", 0.2), ("pretrained", 0.4))
        for s in range(2)
    ],
}


def crops(name: str = "a/p{}.jpg", side: int = 40) -> list[Neighbours]:
    images = [np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(4)]
    found = tuple(Crop(name.format(i), image, 0.9 - i / 10) for i, image in enumerate(images))
    return [Neighbours(Crop(name.format(9), images[0]), found)] * 2


def monitored(run: Path, epochs: tuple[int, ...] = (0, 5)) -> None:
    lines = []
    for epoch in epochs:
        folder = run / "monitors" / f"epoch-{epoch:04d}"
        folder.mkdir(parents=True)
        picture = fitted([Row("", (Drawn("", "", Noise().read(epoch)),))], 10**6)[0].pictures[0]
        (folder / "neighbours.jpg").write_bytes(base64.b64decode(picture.uri.partition(",")[2]))
        rows = [{"photo": "x.jpg", "neighbours": [{"photo": "<i>.jpg", "similarity": 0.5}]}]
        (folder / "neighbours.json").write_text(json.dumps({"rows": rows}))
        place = {"step": 10 * epoch, "epoch": epoch}
        lines.append(place | {"monitor": "neighbours", "neighbours/similarity": 0.5})
        lines.append(place | {"monitor": "knn", "knn/top1": 0.25 + epoch / 20, "seconds": 7.0, "seconds_saving": 0.0})
    write_metrics(run, *lines)


WARNING = {
    "step": 60, "epoch": 6, "health": "collapse", "state": "begins", "sentence": "All regions look alike <now>.",
    "figure": "embed/std_online", "value": 0.0012,
}  # fmt: skip


def full(run: Path, tmp_path: Path, name: str = "a/p{}.jpg") -> str:
    monitored(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(WARNING) + "\n")
    return render(
        run, photos=Photos(name=name), truth=tmp_path / "truth", quality=QUALITY, probe=PROBE,
        neighbours=(crops(name), "Said of them."), recipes=RECIPES,
    ).read_text()  # fmt: skip


def test_a_full_page(run: Path, tmp_path: Path) -> None:
    text = full(run, tmp_path)
    page = Page(text)
    sections = [s.get("aria-labelledby") for s in page.all("section")]
    assert sections == [
        "health", "photos", "regions", "neighbours", "monitors", "quality", "probe", "training", "time", "skipped",
        "recipe", "environment",
    ]  # fmt: skip
    links = [a.get("href") for a in page.all("a")]
    assert links == [f"#{name}" for name in sections]
    assert [h.get("id") for h in page.all("h2")] == sections
    assert len(page.all("img", page.section("photos"))) == 3 * 3 + 2  # photo and two generations each, truth of two
    assert text.count("ground truth</figcaption>") == 2
    assert len(text) < 5_000_000


def test_the_state_of_a_run_that_goes_on(run: Path) -> None:
    words = Page(render(run, photos=Photos()).read_text()).text()
    assert (
        "This run is not finished: step 60 of 120 (50%), epoch 7 of 60 on 20 photos, in 3m 0s of recorded time. "
        "It is going on, or was stopped."
    ) in words
    assert "No health warning was given." in words
    assert "crash.txt" not in words
    (run / "crash.txt").write_text("secret")
    (run / "backbone.safetensors").touch()
    words = Page(render(run).read_text()).text()
    assert "This run is finished: 60 steps in 60 epochs on 20 photos" in words
    assert "crash.txt in the run's folder tells of a failure" in words
    assert "secret" not in words


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = tmp_path / "new"
    run.mkdir()
    page = Page(render(run).read_text())
    assert "no step yet" in page.text()
    assert not page.all("h2")
    assert not page.all("img")


def test_health(run: Path, tmp_path: Path) -> None:
    page = Page(full(run, tmp_path))
    row = page.text(page.all("tr", page.section("health"))[1])
    assert row == "60 6 collapse began All regions look alike <now>. embed/std_online = 0.0012"
    assert "Health warning: All regions look alike <now>." in page.text()
    write_metrics(run)
    words = Page(render(run).read_text()).text()
    assert "No warning was given." in words
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    page = Page(render(run).read_text())
    assert page.section("health") is None
    assert "No health warning" not in page.text()  # nobody looked


def test_regions_are_counted(run: Path) -> None:
    page = Page(render(run).read_text())
    rows = [page.text(row) for row in page.all("tr", page.section("regions"))]
    assert rows[1:] == ["generation 0 1 3 2 2 2", "generation 1 4 3 3 3 3"]
    assert "generation 1: 3 to 3" in page.all("div", page.section("regions"))[0].get("aria-label", "")


def test_neighbours(run: Path) -> None:
    page = Page(render(run, photos=Photos(), neighbours=(crops(), "Said of them.")).read_text())
    section = page.section("neighbours")
    assert page.text(section).count("0.90 0.80 0.70 0.60") == 2
    assert "Said of them." in page.text(section)
    alts = [image.get("alt", "") for image in page.all("img", section)]
    assert alts[:2] == [
        "the region that is compared, outlined, in a/p9.jpg", "nearest region 1, outlined, in a/p0.jpg: cosine 0.90"
    ]  # fmt: skip
    words = Page(render(run, photos=Photos(), neighbours=([], "Left out: no checkpoint.")).read_text())
    assert "Left out: no checkpoint." in words.text()


def test_monitors(run: Path) -> None:
    monitored(run, tuple(range(12)))
    (run / "monitors/epoch-0011/neighbours.jpg").write_bytes(b"half written")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 60, "epoch": 11, "monitor": "knn", "failed": "red/0.png: gone"}\n')
    page = Page(render(run).read_text())
    section = page.section("monitors")
    alts = [image.get("alt", "") for image in page.all("img", section)]
    assert len(alts) == 5  # six of twelve, the last is not readable
    assert alts[0].endswith("before training. x.jpg: <i>.jpg")
    assert "after 9 epochs" in alts[4]
    assert "At epoch 11 a monitor failed: red/0.png: gone" in page.text(section)
    assert "Accuracy of the nearest photos' vote" in page.text(page.section("training"))
    assert "accuracy rose from 0.250 to 0.800" in page.text()
    assert "monitors 1m 24s" in page.text(page.section("time"))


def test_the_recipe_and_what_differs(run: Path) -> None:
    base = RECIPES["demo"]()
    recipe = replace(base, epochs=77, workers=5).resolved(3200)
    (run / "recipe.yaml").write_text(recipe_file.to_text(recipe))
    (run / "photos.json").write_text('{"photos": 3200}')
    page = Page(render(run, recipes=RECIPES).read_text())
    assert [page.text(row) for row in page.all("tr", page.section("recipe"))] == [
        "setting demo this run",
        "epochs 12 77",
    ]
    assert "torch" in page.text(page.section("environment"))
    assert "processors" in page.text(page.section("environment"))
    (run / "recipe.yaml").write_text(recipe_file.to_text(base.resolved(3200)))
    assert "The built-in recipe demo, unchanged." in Page(render(run, recipes=RECIPES).read_text()).text()
    (run / "recipe.yaml").write_text("name: later\nwarp: 9\n")
    assert "cannot read the recipe" in Page(render(run, recipes=RECIPES).read_text()).text()


def test_time(run: Path) -> None:
    page = Page(render(run).read_text())
    rows = [page.text(row) for row in page.all("tr", page.section("time"))]
    assert rows[1:] == [
        "warm-up 12s 6.9%", "training 1m 2s 34.7%", "waiting for photos 30s 16.7%", "making masks 1m 0s 33.3%",
        "saving 15s 8.3%",
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')  # a run before there was a clock
    assert Page(render(run).read_text()).section("time") is None


def test_skipped_files(run: Path) -> None:
    page = Page(render(run).read_text())
    assert "20 photos. 1 skipped as unreadable." in page.text(page.section("skipped"))
    assert page.text(page.all("tr", page.section("skipped"))[1]) == "<b>bad</b>.jpg truncated JPEG"
    lines = "".join(f"{i}.jpg,{'x' * 1000}\n" for i in range(150))
    (run / "skipped.csv").write_text("name,reason\n" + lines)
    page = Page(render(run).read_text())
    assert len(page.all("tr", page.section("skipped"))) == 101
    assert "And 50 more" in page.text()
    assert max(map(len, page.raw.split())) < 1000


def test_nothing_outside_the_page(run: Path, tmp_path: Path) -> None:
    text = full(run, tmp_path)
    page = Page(text)
    for tag in ("script", "link", "iframe", "object", "embed", "base", "form"):
        assert not page.all(tag)
    assert [m.get("name") for m in page.all("meta")] == [None, "viewport"]
    urls = re.findall(r'(?:src|href|srcset|action)="([^"]+)"', text) + re.findall(r"url\(([^)]+)\)", text)
    assert urls
    assert all(u.startswith(("data:image/", "#")) for u in urls)
    assert "@import" not in text
    assert not re.search(r'\son\w+="', text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {u[1:] for u in urls if u.startswith("#")} <= set(ids)


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&{{ 7*7 }}"


def test_nothing_unescaped(run: Path, tmp_path: Path) -> None:
    for kind in ("health", "sentence", "figure"):
        WARNING_ = WARNING | {kind: HOSTILE, "step": 61}
        write_metrics(
            run,
            WARNING_,
            {"step": 61, HOSTILE: 1.0, "phase": HOSTILE},
            {"step": 61, "monitor": HOSTILE, "failed": HOSTILE},
        )
        quality = json.loads(json.dumps(QUALITY))
        quality["classes"] = [HOSTILE, "\ud800\x07"]
        quality["rows"][0]["name"] = HOSTILE
        (run / "skipped.csv").write_text(f'name,reason\n"{HOSTILE.replace(chr(34), chr(34) * 2)}",\x1b[31mred\n')
        (run / "recipe.yaml").write_text(f"# {HOSTILE}: 1\nname: {json.dumps(HOSTILE)}\n")
        text = render(
            run, photos=Photos(name=HOSTILE.replace("{{ 7*7 }}", "") + "{}"), truth=tmp_path / "truth", quality=quality,
            probe=PROBE, neighbours=(crops(HOSTILE.replace("{{ 7*7 }}", "")), HOSTILE), recipes=RECIPES,
        ).read_text()  # fmt: skip
        page = Page(text)
        assert not page.all("script")
        assert not [i for i in page.all("img") if "onerror" in i.attrib or i.get("src") == "x"]
        assert "{{ 7*7 }}" in page.text()
        assert "\\x1b[31mred" in page.text()
        assert not re.search("[\x00-\x08\x0e-\x1f]", text)


def test_pictures_and_figures_have_words(run: Path, tmp_path: Path) -> None:
    page = Page(full(run, tmp_path))
    assert page.root.find(".").get("lang") == "en"
    assert all(image.get("alt") and image.get("width") and image.get("height") for image in page.all("img"))
    parents = {child: parent for parent in page.root.iter() for child in parent}
    drawings = page.all("svg")
    assert len(drawings) > 5
    for svg in drawings:
        assert parents[svg].get("role") == "img"
        assert len(parents[svg].get("aria-label", "")) > 20
    levels = [int(e.tag[-1]) for e in page.root.iter() if isinstance(e.tag, str) and re.search(r"}h\d$", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    for row in page.all("tr"):
        cells = list(row)
        assert cells[0].tag.endswith("th")
        assert all(page.text(c) or c.get("aria-hidden") for c in cells if c.tag.endswith("th"))
    for region in page.all("div"):
        if region.get("class") == "wide":
            assert region.get("tabindex") == "0"
            assert region.get("aria-label")


def colours(css: str) -> dict[str, dict[str, str]]:
    """The variables of the light page and of the dark one."""
    blocks = re.findall(r":root \{([^}]*--ink[^}]*)\}", css)
    assert len(blocks) == 2
    return {
        name: dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for name, block in zip(("light", "dark"), blocks, strict=True)
    }


def contrast(a: str, b: str) -> float:
    """WCAG 2.2's contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(run: Path, scheme: str) -> None:
    css = Page(render(run).read_text()).all("style")[0].text or ""
    known = colours(css)[scheme]
    for text in ("ink", "soft", "link", "warn"):
        for ground in ("paper", "panel"):
            assert contrast(known[text], known[ground]) >= 4.5, (text, ground)
    for shape in ("curve", "faint"):
        assert contrast(known[shape], known["paper"]) >= 3, shape
    assert set(re.findall(r"color: ([^;]+);", css)) <= {f"var(--{n})" for n in known} | {"light dark"}
    rest = re.sub(r"--\w+: #[0-9a-f]{6}", "", css)
    assert not re.search(r"#[0-9a-f]{3,8}\b", rest)  # no colour that a scheme does not set


def test_print_has_no_dark_ground(run: Path) -> None:
    css = Page(render(run).read_text()).all("style")[0].text or ""
    assert "@media print" in css
    assert re.search(r"@media screen and \(prefers-color-scheme: dark\)", css)
    assert css.count("prefers-color-scheme") == 1  # the dark colours are for screens alone


def test_a_long_run_of_large_pictures_stays_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "long", photos=8, generations=0)
    rng = np.random.default_rng(0)
    for generation in range(7):
        writer = GenerationWriter(run, generation, 8, 0, {})
        for i in range(8):
            writer.write(i, LabelMap(rng.integers(0, 256, (150, 100), dtype=np.uint8)))
        writer.publish()
    monitored(run, tuple(range(8)))
    figures = [", ".join(f'"loss/figure{k}": {v:.4f}' for k, v in enumerate(row)) for row in rng.random((1000, 4))]
    with open(run / "metrics.jsonl", "a") as file:
        for step in range(1, 200_001):
            file.write(f'{{"step": {step}, "phase": "training", {figures[step % 1000]}}}\n')
            if step % 50 == 0:
                file.write(f'{{"step": {step}, "epoch": 1, "refresh": "masks", "cycle": {step // 50}}}\n')
            if step % 20 == 0:
                file.write(f'{{"step": {step}, "other{step % 2000}": {step}.5}}\n')
    (run / "skipped.csv").write_text("name,reason\n" + "".join(f"{i}{'n' * 250},{'r' * 3000}\n" for i in range(5000)))
    path = render(run, photos=Noise(8, size=(1500, 1000)), neighbours=(crops(side=112) * 3, "x"), count=8)
    assert path.stat().st_size < 5_000_000
    page = Page(path.read_text())
    assert len(page.all("img", page.section("photos"))) == 8 * 6  # none was dropped
    drawings = re.findall(r"<svg.*?</svg>", page.raw, re.DOTALL)
    assert 50 < len(drawings) <= 57
    assert sorted(map(len, drawings))[-2] < 35_000  # the histogram has a bar for each number


def test_pictures_fit_their_room() -> None:
    noise = Noise(size=(400, 240)).read(0)
    rows = [Row(str(i), (Drawn("", "", noise),)) for i in range(10)]
    for room, expected in ((10**7, 10), (400_000, 10), (20_000, 5)):
        made = fitted(rows, room)
        total = sum(len(p.uri) for row in made for p in row.pictures)
        assert total <= room
        assert (len(made) == expected) if room > 20_000 else (0 < len(made) < 10)
    assert fitted([], 10) == []


def test_the_same_run_gives_the_same_page(run: Path, tmp_path: Path) -> None:
    pages = [
        render(run, photos=Photos(), quality=QUALITY, neighbours=(crops(), ""), out=tmp_path / f"{i}.html").read_bytes()
        for i in range(2)
    ]
    assert pages[0] == pages[1]


def test_the_page_appears_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = render(run)
    before = path.read_bytes()

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DiskError, match="the disk is full"):
        render(run, photos=Photos())
    assert path.read_bytes() == before


def test_names_that_are_not_utf8(run: Path) -> None:
    name = b"caf\xe9{}.jpg".decode("utf-8", "surrogateescape")
    words = Page(render(run, photos=Photos(name=name)).read_text()).text()
    assert re.search(r"caf\\(udc|x)e90\.jpg", words)


def test_the_summary_says_what_the_figures_say() -> None:
    quality = json.loads(json.dumps(QUALITY))
    sentences = summary(quality, PROBE, History())
    assert sentences[0].endswith("(random weights to end); 5 x 5 grid: 0.050, which is lower.")
    assert "it stayed at 0.250 (generation 0 to end); 5 x 5 grid: 0.400, which is higher" in sentences[1]
    assert sentences[2] == (
        "Linear probe on layer2 + layer4: mIoU 0.205 with random, 0.405 with pretrained: 0.200 higher."
    )
    quality["rows"][2]["miou"] = 0.08
    assert "did not rise: it fell from 0.100 to 0.080" in summary(quality, None, History())[0]
    worse = {"rows": [dict(r, miou=0.6 - r["miou"]) for r in PROBE["rows"]]}
    assert summary(None, worse, History()) == [
        "Linear probe on layer2 + layer4: mIoU 0.395 with random, 0.195 with pretrained: 0.200 lower."
    ]
    one = {"rows": quality["rows"][:1]}
    assert summary(one, None, History()) == []


def test_probe_rows_are_means_over_seeds() -> None:
    rows = probe_rows(PROBE)
    assert [(r["name"], r["seeds"]) for r in rows] == [("random", 2), ("pretrained", 2)]
    assert rows[0]["miou"] == pytest.approx(0.205)
    assert rows[0]["spread"] == pytest.approx(0.005)
    assert rows[0]["baseline"]


def test_losses_where_nothing_was_measured(run: Path) -> None:
    words = Page(render(run, photos=Photos()).read_text()).text()
    assert "The contrast loss was 4.567 at first and 3.067 at last" in words
    assert "Quality" not in words
    assert "probe" not in words
    assert "ground truth" not in words


def test_spread() -> None:
    assert spread(3, 8) == [0, 1, 2]
    assert spread(100, 5) == [0, 25, 50, 74, 99]
    assert spread(5, 1) == [0]
    assert spread(0, 4) == []
