"""Photos are read in ``data/`` alone, through ``Images``: no other room decodes a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "cyborgs"
ALLOWED = {
    ("doctor/speeds.py", "decode"): "measures the decoder, on bytes that it made and on those of Images",
    ("doctor/speeds.py", "simplejpeg"): "makes the JPEG on which it is measured",
    ("doctor/probes.py", "simplejpeg"): "names the versions of libraries; opens nothing",
    ("prepare/cache.py", "simplejpeg"): "its version is part of what masks depend on",
    ("prepare/makers.py", "imread"): "saliency maps that were prepared",
    ("report/render.py", "decode"): "the monitors' pictures, which the product wrote itself",
    ("report/pictures.py", "Image.open"): "label maps of --truth",
}
"""What may stand where, and why it is no photo."""


def found_in(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("decode", "decode.decode", "read_photo"):
                yield called.split(".")[0]
            elif called.endswith(("Image.open", "imread", "imdecode")):
                yield "Image.open" if called.endswith("Image.open") else called.split(".")[-1]
        elif (
            (isinstance(node, ast.Import) and any(alias.name == "simplejpeg" for alias in node.names))
            or (isinstance(node, ast.ImportFrom) and node.module == "simplejpeg")
            or (isinstance(node, ast.Constant) and node.value == "simplejpeg")
        ):
            yield "simplejpeg"


def test_no_photo_is_opened_elsewhere() -> None:
    found = {
        (str(file.relative_to(ROOT)), what)
        for file in ROOT.rglob("*.py")
        if file.relative_to(ROOT).parts[0] != "data"
        for what in found_in(file)
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from PIL import Image\nImage.open(p)", ["Image.open"]),
        ("import PIL.Image\nPIL.Image.open(p)", ["Image.open"]),
        ("cv2.imread(p)", ["imread"]),
        ("decode(p.read_bytes(), 'x')", ["decode"]),
        ("import simplejpeg", ["simplejpeg"]),
        ("b'x'.decode()", []),
        ("images.read(i)", []),
    ],
)
def test_what_is_looked_for(tmp_path: Path, text: str, wanted: list[str]) -> None:
    (tmp_path / "x.py").write_text(text)
    assert list(found_in(tmp_path / "x.py")) == wanted
