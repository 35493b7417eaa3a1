import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cyborgs.data.scenes import write_label_png
from cyborgs.masks.store import GenerationWriter
from cyborgs.report.figures import curve_names, curves, read_metrics
from cyborgs.report.pictures import spread
from cyborgs.report.render import render
from cyborgs.report.summary import probe_rows, summary
from cyborgs.structures import LabelMap


class Photos:
    def __init__(self, count=3, name="a/p{}.jpg"):
        self.count, self.pattern = count, name

    def __len__(self):
        return self.count

    def read(self, i):
        return np.full((60, 80, 3), 40 * i + 20, np.uint8)

    def name(self, i):
        return self.pattern.format(i)


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "path", "use"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def metrics_lines():
    for step in range(1, 61):
        phase = "warm-up" if step <= 10 else "training"
        losses = {"loss/cluster": 2.0 / step} if phase == "warm-up" else {"loss/contrast": 5.0 - step / 30}
        yield {"step": step, "epoch": step // 10, "phase": phase, **losses, "lr": 0.1, "images_per_second": 9.0}
        if step in (10, 40):
            yield {"step": step, "epoch": step // 10, "refresh": "masks", "cycle": (10, 40).index(step)}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in metrics_lines())
    (folder / "metrics.jsonl").write_text(text + '{"step": 61, "lo')
    (folder / "skipped.csv").write_text("name,reason\n<b>bad</b>.jpg,truncated JPEG\n")
    (folder / "recipe.yaml").write_text("name: small\nnote: <script>alert(1)</script>\n")
    for generation in range(2):
        writer = GenerationWriter(folder, generation, 3, 0, {})
        for i in range(3):
            writer.write(i, LabelMap(np.arange(12, dtype=np.uint8).reshape(3, 4) % (generation + 2)))
        writer.publish()
    (tmp_path / "truth" / "a").mkdir(parents=True)
    for i in range(2):
        write_label_png(tmp_path / f"truth/a/p{i}.png", np.full((60, 80), i, np.uint8))
    return folder


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


def test_a_full_page(run, tmp_path):
    path = render(run, photos=Photos(), truth=tmp_path / "truth", quality=QUALITY, probe=PROBE)
    assert path == run / "report.html"
    text = path.read_text()
    page = Page(text)
    images = page.all("img")
    assert len(images) == 3 * 3 + 2  # photo and two generations each, truth of two
    assert all(i["alt"] and i["src"].startswith("data:image/") for i in images)
    assert len(page.all("svg")) == 3
    assert all(f.get("aria-label") for f in page.all("figure") if f.get("role") == "img")
    for words in (
        "3 photos. 1 skipped",
        "mIoU rose from 0.100 to 0.300",
        "masks 1: 0.50",
        "masks 1: at epoch 4",
        "wall",
    ):
        assert words in page.words
    assert text.count("ground truth</figcaption>") == 2
    assert len(page.all("table")) == 2
    assert len(text) < 5_000_000


def test_nothing_outside_the_page_and_nothing_unescaped(run, tmp_path):
    text = render(run, photos=Photos(name="<i>{}</i>.jpg"), quality=QUALITY, probe=PROBE).read_text()
    page = Page(text)
    assert not page.all("script")
    assert not page.all("i")
    assert not page.all("b")
    assert not page.all("link")
    urls = re.findall(r'(?:src|href)="([^"]+)"', text) + re.findall(r"url\(([^)]+)\)", text)
    assert all(u.startswith(("data:", "#")) for u in urls)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {u[1:] for u in urls if u.startswith("#")} <= set(ids)


def test_an_own_run_has_no_sections_without_contents(run, tmp_path):
    words = Page(render(run, photos=Photos(), out=tmp_path / "page.html").read_text()).words
    assert "Quality" not in words
    assert "probe" not in words
    assert "ground truth" not in words
    assert "The contrast loss was 4.567 at first and 3.067 at last" in words
    empty = tmp_path / "empty"
    empty.mkdir()
    page = Page(render(empty).read_text())
    assert not page.all("h2")
    assert not page.all("img")


def test_the_same_run_gives_the_same_page(run, tmp_path):
    pages = [render(run, photos=Photos(), quality=QUALITY, out=tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_names_that_are_not_utf8(run):
    name = b"caf\xe9{}.jpg".decode("utf-8", "surrogateescape")
    assert "caf\\xe90.jpg" in render(run, photos=Photos(name=name)).read_text()


def test_the_summary_says_what_the_figures_say():
    quality = json.loads(json.dumps(QUALITY))
    sentences = summary(quality, PROBE, [])
    assert sentences[0].endswith("(random weights to end); 5 x 5 grid: 0.050, which is lower.")
    assert "it stayed at 0.250 (generation 0 to end); 5 x 5 grid: 0.400, which is higher" in sentences[1]
    assert sentences[2] == (
        "Linear probe on layer2 + layer4: mIoU 0.205 with random, 0.405 with pretrained: 0.200 higher."
    )
    quality["rows"][2]["miou"] = 0.08
    assert "did not rise: it fell from 0.100 to 0.080" in summary(quality, None, [])[0]
    worse = {"rows": [dict(r, miou=0.6 - r["miou"]) for r in PROBE["rows"]]}
    assert summary(None, worse, []) == [
        "Linear probe on layer2 + layer4: mIoU 0.395 with random, 0.195 with pretrained: 0.200 lower."
    ]
    one = {"rows": quality["rows"][:1]}
    assert summary(one, None, []) == []


def test_probe_rows_are_means_over_seeds():
    rows = probe_rows(PROBE)
    assert [(r["name"], r["seeds"]) for r in rows] == [("random", 2), ("pretrained", 2)]
    assert rows[0]["miou"] == pytest.approx(0.205)
    assert rows[0]["spread"] == pytest.approx(0.005)
    assert rows[0]["baseline"]


def test_curves(run):
    metrics = read_metrics(run / "metrics.jsonl")
    assert len(metrics) == 62
    assert curve_names(metrics) == ["loss/cluster", "loss/contrast", "lr"]
    assert curve_names([{"step": 1, "loss": 1.0, "loss/byol": 1.0}]) == ["loss/byol"]
    assert curve_names([{"step": 1, "loss": 1.0, "loss/a": 1.0, "loss/b": 2.0, "phase": "x"}]) == [
        "loss",
        "loss/a",
        "loss/b",
    ]
    figures = curves(metrics)
    assert [f.title for f in figures] == ["cluster loss", "contrast loss", "learning rate"]
    assert "3 at step 60" in figures[1].alt
    assert "currentColor" in figures[0].svg
    assert read_metrics(run / "none.jsonl") == []
    assert curves([{"step": 1, "loss/a": math.inf}, {"step": 2, "loss/a": 1.0}])


def test_spread():
    assert spread(3, 8) == [0, 1, 2]
    assert spread(100, 5) == [0, 25, 50, 74, 99]
    assert spread(5, 1) == [0]
    assert spread(0, 4) == []
