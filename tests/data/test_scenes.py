import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from cyborgs.data.palette import boundaries, nearest, overlay, palette
from cyborgs.data.scenes import CLASSES, make_scene, write_scenes
from cyborgs.errors import UserError


def digest(folder):
    h = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        h.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return h.hexdigest()


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_scenes(tmp_path / name, 6, seed=seed, size=(96, 80))
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_a_scene_does_not_depend_on_the_others(tmp_path):
    few, many = write_scenes(tmp_path / "few", 3), write_scenes(tmp_path / "many", 5)
    for i in range(3):
        for folder in ("photos", "truth"):
            names = [next((s.folder / folder).glob(f"scene-{i:04d}.*")) for s in (few, many)]
            assert names[0].read_bytes() == names[1].read_bytes()


def test_what_is_written(tmp_path):
    scenes = write_scenes(tmp_path / "s", 12, size=(96, 80))
    train, val = scenes.train.read_text().splitlines(), scenes.val.read_text().splitlines()
    assert (len(train), len(val)) == (10, 2)
    assert len(set(train + val)) == 12
    for line in train + val:
        photo, truth = line.split()
        with Image.open(scenes.folder / photo) as p, Image.open(scenes.folder / truth) as t:
            assert p.size == t.size == (96, 80)
            assert (p.mode, t.mode) == ("RGB", "P")
            assert np.asarray(t).max() < len(CLASSES)
    assert json.loads((scenes.folder / "classes.json").read_text())["classes"] == list(CLASSES)


def test_scenes_hold_all_classes_and_several_each():
    truths = [make_scene(i)[1] for i in range(60)]
    present = [np.unique(t) for t in truths]
    assert set(np.concatenate(present)) == set(range(len(CLASSES)))
    assert np.mean([len(p) for p in present]) > 3.5
    share = np.bincount(np.concatenate([t.ravel() for t in truths]), minlength=len(CLASSES)) / truths[0].size / 60
    assert share.min() > 0.02
    assert share.max() < 0.5


def test_colour_alone_does_not_tell_the_class():
    # Nearest class mean by colour, fitted and judged on the same cells: what colour can do at best in this way.
    colours, labels = [], []
    for i in range(60):
        image, truth = make_scene(i)
        colours.append(image[4::8, 4::8].reshape(-1, 3).astype(float))
        labels.append(truth[4::8, 4::8].ravel())
    x, y = np.concatenate(colours), np.concatenate(labels)
    means = np.stack([x[y == c].mean(0) for c in range(len(CLASSES))])
    predicted = np.linalg.norm(x[:, None] - means[None], axis=2).argmin(1)
    recall = np.mean([(predicted[y == c] == c).mean() for c in range(len(CLASSES))])
    assert recall < 0.45


def test_a_finished_folder_is_left_alone_and_an_interrupted_one_completed(tmp_path):
    scenes = write_scenes(tmp_path / "s", 4, size=(96, 80))
    before, photo = digest(scenes.folder), scenes.photos / "scene-0002.jpg"
    stamp = photo.stat().st_mtime_ns
    write_scenes(scenes.folder, 4, size=(96, 80))
    assert photo.stat().st_mtime_ns == stamp
    (scenes.folder / "classes.json").unlink()
    photo.unlink()
    write_scenes(scenes.folder, 4, size=(96, 80))
    assert digest(scenes.folder) == before


def test_other_contents_are_refused(tmp_path):
    scenes = write_scenes(tmp_path / "s", 4, size=(96, 80))
    with pytest.raises(UserError, match="other settings"):
        write_scenes(scenes.folder, 4, seed=1, size=(96, 80))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(UserError, match=r"letter\.txt"):
        write_scenes(tmp_path / "mine", 4)
    with pytest.raises(UserError, match="at least 2"):
        write_scenes(tmp_path / "n", 1)
    with pytest.raises(UserError, match="64 x 64"):
        write_scenes(tmp_path / "n", 4, size=(96, 40))
    assert not (tmp_path / "n").exists()


def test_palette_colours_differ():
    assert len({tuple(c) for c in palette()}) == 256
    with pytest.raises(ValueError, match="257"):
        palette(257)


def test_nearest_and_overlay():
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    assert np.array_equal(nearest(labels, 4, 6), np.kron(labels, np.ones((2, 3), np.uint8)))
    # 5 pixels of 2 cells: centres at 0.1 0.3 0.5 0.7 0.9; cell 1 begins at 0.5.
    assert nearest(np.array([[0, 1]], np.uint8), 1, 5).tolist() == [[0, 0, 1, 1, 1]]
    assert boundaries(labels).tolist() == [[True, True], [True, False]]
    grey = np.full((4, 6, 3), 100, np.uint8)
    assert np.array_equal(overlay(grey, labels, alpha=0.0, edges=False), grey)
    assert np.array_equal(overlay(grey, labels, alpha=1.0, edges=False), palette()[nearest(labels, 4, 6)])
    assert (overlay(grey, labels)[1, 0] == 255).all()
