from __future__ import annotations

import math
import re
from array import array
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cyborgs.report.catalogue import OTHER, grouped, title_of
from cyborgs.report.figures import curve, histogram, thinned
from cyborgs.report.history import History, Series, read_history
from tests.report.fakes import make_run


def series(values: list[float], first: int = 1) -> Series:
    return Series(array("d", range(first, first + len(values))), array("d", values))


def test_few_points_stay() -> None:
    few = thinned(series([3.0, math.inf, 1.0]))
    assert few.steps.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(few.values, [3, math.nan, 1])
    assert few.low is None


def test_many_points_become_means_with_their_range() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    values[17], values[5_000:5_100] = math.nan, math.inf
    many = thinned(series(values.tolist()), 100)
    assert len(many.steps) == 100
    assert many.low is not None
    assert many.high is not None
    for k in range(100):
        part = [v for s, v in enumerate(values, 1) if min(99, int((s - 1) / 99.99)) == k and math.isfinite(v)]
        expected = (np.mean(part), min(part), max(part)) if part else (math.nan,) * 3
        np.testing.assert_allclose((many.values[k], many.low[k], many.high[k]), expected, rtol=1e-9)
    assert np.isnan(many.values).sum() == 1  # nothing finite there, and nothing invented
    assert len(thinned(Series(array("d", [7.0] * 500), array("d", [1.0] * 500)), 100).steps) == 1


def paths(svg: str) -> list[str]:
    return re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*stroke: var\(--curve\)', svg)


def test_a_gap_is_no_line() -> None:
    run = History(step=60)
    whole = curve("loss/a", series([1.0, 2.0] * 30), run)
    steps = array("d", [*range(1, 21), *range(41, 61)])
    broken = curve("loss/a", Series(steps, array("d", [1.0, 2.0] * 20)), run)
    assert whole is not None
    assert broken is not None
    assert [p.count("M") for p in paths(whole.svg)] == [1]
    assert [p.count("M") for p in paths(broken.svg)] == [2]


def test_alt_text_says_what_the_curve_shows(tmp_path: Path) -> None:
    history = read_history(make_run(tmp_path / "run") / "metrics.jsonl")
    figure = curve("loss/contrast", history.series["loss/contrast"], history)
    assert figure is not None
    assert figure.title == "Contrast loss (loss 1)"
    assert figure.alt == ("Contrast loss (loss 1) over steps: 4.633 at step 11, 3 at step 60; lowest 3, highest 4.633")
    odd = curve("x", series([1.0, math.nan, 3.0]), History(step=3))
    assert odd is not None
    assert odd.alt.endswith("; 1 values are not finite, or too large to draw")
    assert curve("x", series([math.nan]), History(step=3)) is None
    assert curve("x", series([1.0]), History(step=1)) is not None
    assert curve("x", series([1e308, 1.0] * 300), History(step=600)) is not None


def test_svg_has_the_pages_colours_and_no_style_of_its_own(tmp_path: Path) -> None:
    history = read_history(make_run(tmp_path / "run") / "metrics.jsonl")
    figures = [curve(name, history.series[name], history) for name in ("lr", "loss/contrast")]
    texts = [figure.svg for figure in figures if figure is not None]
    for svg in texts:
        ElementTree.fromstring(svg)
        assert not re.search(r"#0[0-9]0[0-9]0[0-9]|<style|<metadata|Date", svg)
        assert {"currentColor", "var(--faint)", "var(--curve)"} <= set(re.findall(r"currentColor|var\(--\w+\)", svg))
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in texts]
    assert not ids[0] & ids[1]
    for svg, own in zip(texts, ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {(i, "") for i in own} | {
            ("", i) for i in own
        }


def test_names_of_any_kind() -> None:
    names = ['"><script>alert(1)</script>', "a b", "a/b", "$x_1$", "ö" * 500]
    texts = [curve(name, series([1.0, 2.0]), History(step=2)) for name in names]
    for figure in texts:
        assert figure is not None
        assert "script" not in re.sub(r'"[^"]*"', "", figure.svg)
        ElementTree.fromstring(figure.svg)
    assert len({re.findall(r'id="([^"]+)"', f.svg)[0] for f in texts if f is not None}) == len(names)


def test_histogram() -> None:
    figure = histogram({0: [1, 1, 2], 4: [3, 250, 3], 5: []})
    assert figure is not None
    assert figure.alt == (
        "Histogram of regions in a photo. generation 0: 1 to 2, median 1; generation 4: 3 to 250, median 3"
    )
    assert "generation 4" in figure.svg
    assert histogram({}) is None


def test_groups() -> None:
    given = ["zebra", "lr", "masks/entropy", "loss", "loss/byol", "apple"]
    assert grouped(given) == [
        ("Losses", ["loss", "loss/byol"]),
        ("Learning rate and gradient", ["lr"]),
        ("Masks, at each generation", ["masks/entropy"]),
        (OTHER, ["apple", "zebra"]),
    ]
    assert title_of("zebra_crossing") == ("zebra crossing", "")
    assert all(title_of("lr"))


@pytest.mark.parametrize(("steps", "expected"), [(900, "900"), (40_000, "40k"), (2_000_000, "2M")])
def test_long_runs_have_short_labels(steps: int, expected: str) -> None:
    figure = curve("lr", Series(array("d", [0, steps]), array("d", [0, 1])), History(step=steps))
    assert figure is not None
    labels = re.findall(r">([^<>]+)</text>", figure.svg)
    assert any(re.fullmatch(r"[\d.]+[kM]?", label) for label in labels)
    assert max(map(len, labels)) <= 5
    assert (expected[-1] in "kM") == any(label[-1] in "kM" for label in labels)
