"""Figure 4: the same thing in the same colour in every column of a row, and a page that anybody can read."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.data.palette import palette
from cyborgs.errors import UserError
from cyborgs.gallery.page import GalleryRow, write_gallery
from tests.report.fakes import Page


def row(name: str = "a/<b>.jpg", many: bool = False) -> GalleryRow:
    """A truth of a large region 7, a small one 2 and void; clusters 200 and 3 on them, and 4 that fits nothing."""
    truth = np.full((60, 80), 7, np.int32)
    truth[:, 50:] = 2
    truth[:10] = -1
    clusters = np.where(truth == 2, 200, 3).astype(np.uint8)
    clusters[40:, :20] = 4
    if many:
        clusters = (np.arange(60)[:, None] // 15 * 4 + np.arange(80)[None] // 20).astype(np.uint8)
    refined = clusters.copy()
    refined[40:, :10] = 5  # a cluster that won nothing before
    names = ("", "", "a cat", "", "", "", "", "wall")
    return GalleryRow(name, np.full((60, 80, 3), 128, np.uint8), clusters, refined, truth, names)


def pictures(page: Page) -> list[np.ndarray]:
    found = []
    for image in page.all("img"):
        data = base64.b64decode(image.get("src", "").partition(",")[2])
        found.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int))
    return found


def colour(picture: np.ndarray, y: int, x: int) -> int:
    """Which of the palette's colours a pixel has, over grey."""
    mixed = (palette(12).astype(int) * 179 + 128 * 77) >> 8
    return int(np.abs(mixed - picture[y, x]).sum(1).argmin())


def test_one_thing_has_one_colour_in_a_row(tmp_path: Path) -> None:
    (path,) = write_gallery([row()], tmp_path / "deep" / "fig4.html")
    photo, clusters, crf, truth = pictures(Page(path.read_text()))
    assert np.abs(photo - 128).max() < 3
    for picture in (clusters, crf, truth):
        assert colour(picture, 30, 10) == 0  # the largest region of the truth, and what covers it
        assert colour(picture, 30, 70) == 1
    assert colour(clusters, 55, 5) == colour(crf, 55, 15) == 2
    assert colour(crf, 55, 5) == 3
    assert (truth[5, 5] == truth[5, 5, 0]).all()  # void


def test_the_page(tmp_path: Path) -> None:
    plain = GalleryRow("two.jpg", np.zeros((40, 30, 3), np.uint8), np.zeros((4, 3), np.uint8))
    (path,) = write_gallery([row(), plain], tmp_path / "fig4.html", title="<run>", said=["From & so."])
    page = Page(path.read_text())
    images = page.all("img")
    assert len(images) == 4 + 2
    assert page.text().count("none") >= 2  # what the second row lacks
    alts = [image.get("alt") for image in images]
    assert alts[0] == "photo a/<b>.jpg"
    assert alts[1].startswith("k-means of a/<b>.jpg: 3 regions: orange 60%, sky blue 31%, green 8%")
    assert alts[3] == "Truth of a/<b>.jpg: 2 regions: wall (orange) 52%, a cat (sky blue) 31%, void 17%"
    assert alts[5] == "k-means of two.jpg: 1 region: orange 100%"
    assert "Truth: 2 regions: wall (orange) 52%, a cat (sky blue) 31%, void 17%." in page.text()
    assert "k-means: 1 region: orange 100%." in page.text()
    assert "<run>" in page.text()
    assert "From & so." in page.text()
    # Nothing from outside, nothing that runs.
    assert "http" not in page.raw.replace("http-equiv", "")
    assert not page.all("script")
    assert not page.all("link")
    assert all(image.get("src", "").startswith("data:") for image in images)
    for words in ("prefers-color-scheme: dark", "@media print", "max-width: 600px"):
        assert words in page.raw


def test_without_truth_and_crf(tmp_path: Path) -> None:
    bare = replace(row(), truth=None, refined=None)
    (path,) = write_gallery([bare], tmp_path / "fig4.html")
    page = Page(path.read_text())
    assert [p.get("alt", "").split(" ")[0] for p in page.all("img")] == ["photo", "k-means"]
    assert colour(pictures(page)[1], 30, 10) == 0  # the largest cluster
    assert "CRF" not in page.text(page.section("columns"))


def test_many_regions_are_numbered(tmp_path: Path) -> None:
    (path,) = write_gallery([row(many=True)], tmp_path / "fig4.html")
    (other,) = write_gallery([row()], tmp_path / "few.html")
    (asked,) = write_gallery([row()], tmp_path / "asked.html", numbers=True)
    alts = [[i.get("alt", "") for i in Page(p.read_text()).all("img")] for p in (path, other, asked)]
    assert "number 1, orange" in alts[0][1]
    assert "10 more" in alts[0][1]
    assert "number" not in alts[1][1]
    assert "number 1, orange" in alts[2][1]
    few, numbered = (pictures(Page(p.read_text()))[3] for p in (other, asked))
    assert (few != numbered).any()


def test_large_photos_are_shrunk(tmp_path: Path) -> None:
    big = GalleryRow("big.jpg", np.zeros((900, 1200, 3), np.uint8), np.zeros((9, 12), np.uint8))
    (path,) = write_gallery([big], tmp_path / "fig4.html")
    assert [p.shape for p in pictures(Page(path.read_text()))] == [(360, 480, 3)] * 2


def test_pictures_and_formats(tmp_path: Path) -> None:
    made = write_gallery(
        [row(), row("山 $x_2$\x1b.jpg")], tmp_path / "fig4.html", formats=("html", "png", "pdf", "png")
    )
    assert [p.name for p in made] == ["fig4.html", "fig4.png", "fig4.pdf"]
    with Image.open(tmp_path / "fig4.png") as picture:
        assert picture.width > 1500
        assert picture.height > 600
    assert (tmp_path / "fig4.pdf").read_bytes().startswith(b"%PDF")
    before = made[2].read_bytes()
    (alone,) = write_gallery([row(), row("山 $x_2$\x1b.jpg")], tmp_path / "one.PDF")
    assert alone.name == "one.PDF"
    assert alone.read_bytes() == before  # no time in it
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fig4.html", "fig4.pdf", "fig4.png", "one.PDF"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="written as html, png, pdf"):
        write_gallery([row()], tmp_path / "fig4.svg")
    with pytest.raises(UserError, match="written as html, png, pdf"):
        write_gallery([row()], tmp_path / "fig4")
    with pytest.raises(UserError, match="no photo"):
        write_gallery([], tmp_path / "fig4.html")
