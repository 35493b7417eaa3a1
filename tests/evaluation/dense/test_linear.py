from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cyborgs.errors import UserError
from cyborgs.evaluation.dense.linear import Probe, ProbeSettings, cell_labels, linear_segmentation, maps_of_both
from cyborgs.evaluation.sets.pixel_sets import PixelSet, read_list
from cyborgs.features.extraction import resize
from cyborgs.features.frozen_maps import Whitening
from tests.features.fakes import FakeBackbone, blocks


def write(folder, count, seed, void_share=0.0) -> PixelSet:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        image, truth = blocks(rng, cells=((6, 8), (5, 7))[i % 2], classes=4)
        truth[rng.random(truth.shape) < void_share] = 255
        Image.fromarray(image).save(folder / f"p{i}.png")
        Image.fromarray(truth).save(folder / f"t{i}.png")
        lines.append(f"p{i}.png t{i}.png\n")
    (folder / "list.txt").write_text("".join(lines))
    return read_list(folder / "list.txt", classes=4, ignore=255)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return write(root / "train", 10, 0, void_share=0.1), write(root / "val", 4, 1)


def test_it_learns_what_is_linear_and_not_what_is_not(sets):
    train, val = sets
    progress = []
    maps = maps_of_both(
        FakeBackbone(), train, val, ["layer2", "layer3", "layer4"], 0, progress=lambda *a: progress.append(a)
    )
    assert progress == [(n, 14) for n in range(1, 15)]

    def probed(*layers):
        options = {"settings": ProbeSettings(min_steps=60), "maps": maps}
        return linear_segmentation(FakeBackbone(), train, val, layers=layers, **options)

    fine = probed("layer2")
    assert fine.miou > 0.85
    assert (fine.train_photos, fine.val_photos) == (10, 4)
    assert probed("layer4").miou < 0.6  # cells of 32 pixels cannot draw blocks of 16
    assert probed("layer2", "layer3", "layer4").miou > 0.85


def test_deterministic_by_seed(sets):
    train, val = sets
    one = ProbeSettings(epochs=2, min_steps=0)
    first, again, other = (
        linear_segmentation(FakeBackbone(), train, val, layers=["layer2"], seed=seed, settings=one)
        for seed in (0, 0, 1)
    )
    assert first == again
    assert other.seed == 1
    assert first.train_loss != other.train_loss


def test_result_as_json(sets):
    train, val = sets
    one_class = val.part([0])
    result = linear_segmentation(
        FakeBackbone(), train, one_class, layers=["layer2"], settings=ProbeSettings(epochs=1, min_steps=0)
    )
    told = result.as_dict()
    assert told["settings"]["epochs"] == 1
    assert len(told["iou"]) == 4


def test_convolution_and_bilinear_interpolation_commute():
    x = torch.randn(1, 7, 5, 6, dtype=torch.float64)
    w, b = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    first = F.conv2d(resize(x, 40, 47), w[:, :, None, None], b)
    last = resize(F.conv2d(x, w[:, :, None, None], b), 40, 47)
    assert torch.allclose(first, last, atol=1e-12)


def test_the_probe_is_a_convolution_on_fused_whitened_maps():
    torch.manual_seed(0)
    maps = {"a": torch.randn(4, 6, 8), "b": torch.randn(3, 3, 4)}
    whitening = {n: Whitening(torch.randn(len(m)), torch.randn(len(m), len(m))) for n, m in maps.items()}
    probe = Probe(["a", "b"], whitening, 5)
    with torch.no_grad():
        for p in (*probe.weights, probe.bias):
            p.normal_()
    fused = torch.cat(
        [
            resize(torch.einsum("chw,cd->dhw", m - whitening[n].mean[:, None, None], whitening[n].matrix)[None], 6, 8)[
                0
            ]
            for n, m in maps.items()
        ]
    )
    expected = torch.einsum("chw,ck->khw", fused, torch.cat(list(probe.weights))) + probe.bias[:, None, None]
    assert torch.allclose(probe.logits(probe.folded(), maps, (6, 8)), expected, atol=1e-4)


def test_cell_labels_are_majorities():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (37, 50)).astype(np.uint8)
    labels[:12, :12] = 3
    got = cell_labels(labels, (5, 7), 3, ignore=3)
    for y in range(5):
        for x in range(7):
            rows = [r for r in range(37) if r * 5 // 37 == y]
            columns = [c for c in range(50) if c * 7 // 50 == x]
            cell = labels[np.ix_(rows, columns)].ravel()
            votes = np.bincount(cell[cell != 3], minlength=3)
            assert got[y, x] == (votes.argmax() if votes.any() else -1)
    assert got[0, 0] == -1


def test_refusals(sets, tmp_path):
    train, val = sets
    with pytest.raises(ValueError, match="at least one"):
        linear_segmentation(FakeBackbone(), train, val, layers=[])
    with pytest.raises(ValueError, match="classes"):
        linear_segmentation(FakeBackbone(), train, replace(val, classes=5), layers=["layer2"])
    swapped = replace(val.part([0, 1]), labels=np.array([1, 0]))
    backbone = FakeBackbone()
    with pytest.raises(UserError, match=r"p0\.png has 128 x 96 pixels.*t1\.png has 112 x 80"):
        linear_segmentation(backbone, train, swapped, layers=["layer2"])
    backbone = FakeBackbone()
    low = replace(train, classes=3)
    with pytest.raises(UserError, match="holds label 3"):
        linear_segmentation(backbone, low, low, layers=["layer2"])
    assert backbone.calls == 0
    with pytest.raises(ValueError, match="above 0"):
        ProbeSettings(epochs=0)
