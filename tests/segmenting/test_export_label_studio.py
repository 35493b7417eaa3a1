"""Decoded by the published format, written out here; by Label Studio's own package where it is installed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cyborgs.segmenting.export_label_studio import LabelStudio, brush_rle
from cyborgs.structures import PhotoMask
from tests.segmenting.fakes import export, masks


def decoded(rle: list[int], height: int, width: int) -> np.ndarray:
    """RGBA uint8 (H, W, 4), bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        value = int(bits[place : place + count], 2)
        place += count
        return value

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated = take(1)
        length = take(sizes[take(2)]) + 1
        out += [take(word)] * length if repeated else [take(word) for _ in range(length)]
    assert len(out) == total == 4 * height * width
    assert len(bits) - place < 8
    assert "1" not in bits[place:]
    return np.array(out, np.uint8).reshape(height, width, 4)


@settings(max_examples=40, deadline=None)
@given(mask=arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_the_mask_comes_back(mask: np.ndarray) -> None:
    rle = brush_rle(mask)
    assert all(isinstance(byte, int) and 0 <= byte <= 255 for byte in rle)
    picture = decoded(rle, *mask.shape)
    for channel in range(4):
        assert np.array_equal(picture[..., channel], np.where(mask, 255, 0))


@pytest.mark.parametrize("size", [(1, 16384), (1, 16385), (150, 300), (1, 1), (1, 2), (1, 3), (1, 5), (1, 65)])
@pytest.mark.parametrize("inside", [True, False])
def test_runs_of_every_length(size: tuple[int, int], inside: bool) -> None:
    mask = np.full(size, inside)
    assert (decoded(brush_rle(mask), *size)[..., 3] == (255 if inside else 0)).all()


def test_tasks_and_interface(tmp_path: Path) -> None:
    some = masks(void=5)
    export(LabelStudio(6, folder="my photos", about="cyborgs segment"), some, tmp_path)
    tasks = json.loads((tmp_path / "label_studio.json").read_text())
    root = ET.fromstring((tmp_path / "label_studio.xml").read_text())
    image, brush = root.find("Image"), root.find("BrushLabels")
    assert (root.tag, image.get("value"), brush.get("toName")) == ("View", "$image", image.get("name"))
    names = [label.get("value") for label in brush]
    assert names == [f"cluster {c}" for c in range(6)]
    assert len({label.get("background") for label in brush}) == 6
    assert len(tasks) == len(some)
    for mask, task in zip(some, tasks, strict=True):
        url = urlsplit(task["data"]["image"])
        assert url.path == "/data/local-files/"
        assert parse_qs(url.query)["d"] == [f"my photos/{mask.name}"]
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "cyborgs segment"
        height, width = mask.labels.shape
        again = np.full(mask.labels.shape, 255, np.uint8)
        for result in prediction["result"]:
            assert (result["type"], result["from_name"], result["to_name"]) == (
                "brushlabels",
                brush.get("name"),
                "image",
            )
            assert (result["original_width"], result["original_height"], result["image_rotation"]) == (width, height, 0)
            assert result["value"]["format"] == "rle"
            (name,) = result["value"]["brushlabels"]
            assert name in names
            inside = decoded(result["value"]["rle"], height, width)[..., 3] > 0
            assert (again[inside] == 255).all()
            again[inside] = names.index(name)
            assert result["score"] == pytest.approx(max(0, mask.cosine[inside].mean(dtype=float)), abs=1e-5)
        outside = mask.labels == 5
        assert np.array_equal(again[~outside], mask.labels[~outside])
        assert (again[outside] == 255).all()
        ids = [result["id"] for result in prediction["result"]]
        assert len(set(ids)) == len(ids)


def test_names_are_quoted(tmp_path: Path) -> None:
    name = b"caf\xe9 & #1%.jpg".decode("utf-8", "surrogateescape")
    mask = PhotoMask(0, name, "m.png", np.zeros((2, 2), np.uint8))
    export(LabelStudio(0, folder="", about="x"), [mask], tmp_path)
    (task,) = json.loads((tmp_path / "label_studio.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=caf%E9%20%26%20%231%25.jpg"
    assert task["predictions"][0]["result"][0]["value"]["brushlabels"] == ["region"]
    assert "score" not in task["predictions"][0]


def test_label_studio_itself_takes_it(tmp_path: Path) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed")
    from label_studio_sdk.label_interface import LabelInterface

    some = masks()
    export(LabelStudio(6, folder="photos", about="cyborgs"), some, tmp_path)
    interface = LabelInterface((tmp_path / "label_studio.xml").read_text())
    interface.validate()
    for mask, task in zip(some, json.loads((tmp_path / "label_studio.json").read_text()), strict=True):
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []
        for result in prediction["result"]:
            label = int(result["value"]["brushlabels"][0].split()[1])
            found = np.reshape(brush.decode_rle(result["value"]["rle"]), (*mask.labels.shape, 4))[..., 3]
            assert np.array_equal(found > 0, mask.labels == label)
            assert brush.mask2rle(np.where(mask.labels == label, 255, 0).astype(np.uint8)) is not None
