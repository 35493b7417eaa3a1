import numpy as np
import pytest
from PIL import Image

from cyborgs.errors import UserError
from cyborgs.evaluation.sets.pixel_sets import read_list


@pytest.fixture
def camvid(tmp_path):
    """Like CamVid: the list lies in a folder that its lines name."""
    root = tmp_path / "Set"
    for part in ("train", "annot"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(root / f"train/{i}.png")
        Image.fromarray(rng.integers(0, 3, (6, 8), dtype=np.uint8)).save(root / f"annot/{i}.png")
    (root / "train.txt").write_text("# photos\nSet/train/0.png Set/annot/0.png\n\nSet/train/1.png Set/annot/1.png\n")
    return root


def test_paths_below_the_lists_parent(camvid):
    found = read_list(camvid / "train.txt", classes=3)
    assert len(found) == 2
    image, labels = found.pair(1)
    assert image.shape == (6, 8, 3)
    assert np.array_equal(image, np.asarray(Image.open(camvid / "train/1.png")))
    assert labels.dtype == np.uint8
    assert labels.max() <= 2


def test_paths_below_the_lists_folder_and_names_with_blanks(camvid):
    (camvid / "train/0.png").rename(camvid / "train/a b.png")
    (camvid / "own.txt").write_text("train/a b.png\tannot/0.png\n")
    assert read_list(camvid / "own.txt", classes=3).pair(0)[0].shape == (6, 8, 3)


def test_palette_labels_are_indices(camvid):
    labels = np.array([[0, 2], [1, 1]], np.uint8)
    picture = Image.fromarray(labels).convert("L")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(camvid / "annot/0.png")
    assert np.array_equal(read_list(camvid / "train.txt", classes=3).truth(0), labels)


def test_ignored_label(camvid):
    Image.fromarray(np.full((6, 8), 255, np.uint8)).save(camvid / "annot/0.png")
    assert read_list(camvid / "train.txt", classes=3, ignore=255).truth(0).max() == 255
    with pytest.raises(UserError, match=r"0\.png: holds label 255"):
        read_list(camvid / "train.txt", classes=3).truth(0)


def test_bad_input_names_the_file(camvid):
    found = read_list(camvid / "train.txt", classes=3)
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(camvid / "annot/0.png")
    with pytest.raises(UserError, match=r"0\.png has 8 x 6 pixels.*9 x 6"):
        found.pair(0)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(camvid / "annot/0.png")
    with pytest.raises(UserError, match=r"0\.png: holds RGB"):
        found.truth(0)
    Image.fromarray(np.full((6, 8), 300, np.uint16)).save(camvid / "annot/0.png")
    with pytest.raises(UserError, match=r"0\.png: holds label 300"):
        found.truth(0)
    (camvid / "annot/0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(UserError, match=r"0\.png: no readable picture"):
        found.truth(0)
    (camvid / "annot/1.png").unlink()
    with pytest.raises(UserError, match=r"annot/1\.png does not exist; 1 files"):
        read_list(camvid / "train.txt", classes=3)
    (camvid / "train/0.png").unlink()
    with pytest.raises(UserError, match=r"looked in .*Set and "):
        read_list(camvid / "train.txt", classes=3)


def test_bad_lists(camvid):
    (camvid / "bad.txt").write_text("only-one-word\n")
    with pytest.raises(UserError, match=r"bad\.txt, line 1"):
        read_list(camvid / "bad.txt", classes=3)
    (camvid / "bad.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="lists no photo"):
        read_list(camvid / "bad.txt", classes=3)
    with pytest.raises(UserError, match=r"none\.txt: the list cannot be read"):
        read_list(camvid / "none.txt", classes=3)
    with pytest.raises(UserError, match="need 2 to 255"):
        read_list(camvid / "train.txt", classes=1)
    with pytest.raises(UserError, match="one per class"):
        read_list(camvid / "train.txt", classes=3, names=["a"])
