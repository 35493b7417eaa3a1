"""Which annotation belongs to which photo."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cyborgs.data.annotations.matching import match, walk, without_suffix
from cyborgs.data.annotations.open import open_truth
from cyborgs.errors import UserError

A = [[0, 0, 3], [255, 3, 7]]
B = [[1, 1], [1, 1]]


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def test_a_base_name_found_in_another_folder(tmp_path):
    write(tmp_path / "trainannot/x.png", B)
    assert open_truth(str(tmp_path), ["train/x.jpg"]).classes(0).tolist() == B


def test_two_annotations_of_one_name(tmp_path):
    for folder in ("p", "q"):
        write(tmp_path / folder / "x.png", B)
    assert open_truth(str(tmp_path), ["p/x.jpg", "q/x.jpg"]).missing == ()
    with pytest.raises(UserError, match=r"p/x and q/x both have the name of the photo r/x\.jpg"):
        open_truth(str(tmp_path), ["r/x.jpg"])


def test_two_photos_of_one_name(tmp_path):
    write(tmp_path / "x.png", B)
    with pytest.raises(UserError, match=r"x fits two photos, p/x\.jpg and q/x\.jpg"):
        open_truth(str(tmp_path), ["p/x.jpg", "q/x.jpg"])


def test_masks_that_keep_the_photos_suffix(tmp_path):
    write(tmp_path / "a.jpg.png", A)
    write(tmp_path / "a.png", B)
    assert open_truth(str(tmp_path), ["a.jpg"]).classes(0).tolist()[0] == [0, 0, 3]


def test_an_annotation_of_another_photo_is_not_taken_for_its_namesake():
    """x belongs to x.jpg, by its whole name: sub/x.jpg has none."""
    assert match(["x.jpg", "sub/x.jpg"], {"x": 1}, "here") == [1, None]
    assert match(["sub/x.jpg", "x.jpg"], {"x": 1}, "here") == [None, 1]
    assert match(["p/x.jpg", "r/x.jpg"], {"p/x": 1, "q/x": 2}, "here") == [1, 2]


def test_photos_that_differ_in_their_suffix_alone():
    with pytest.raises(UserError, match=r"here: x fits two photos, x\.jpg and x\.png"):
        match(["x.jpg", "x.png"], {"x": 1}, "here")
    assert match(["x.jpg", "x.png"], {"x.jpg": 1, "x.png": 2}, "here") == [1, 2]


@pytest.mark.parametrize("name", ["", "..", ".", "a/..", "..jpg", "/", "../../x.jpg"])
def test_odd_names_match_nothing(name):
    assert match([name], {"y": 1}, "here") == [None]
    assert isinstance(without_suffix(name), str)


def test_the_same_photo_twice_in_a_list():
    assert match(["x.jpg", "x.jpg"], {"x": 1}, "here") == [1, 1]


def test_two_files_of_one_photo(tmp_path):
    write(tmp_path / "x.png", B)
    write(tmp_path / "x2.png", B)
    (tmp_path / "x2.png").rename(tmp_path / "x.PNG")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system knows no case")
    with pytest.raises(UserError, match=r"x\.PNG and x\.png are of the same photo"):
        open_truth(str(tmp_path), ["x.jpg"])


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    write(tmp_path / "elsewhere/x.png", B)
    labels = tmp_path / "labels"
    write(labels / "y.png", B)
    (labels / "train").symlink_to(tmp_path / "elsewhere")
    (labels / "round").symlink_to(labels)
    assert open_truth(str(labels), ["train/x.jpg", "y.jpg"]).missing == ()
    assert [files for _, files in walk(labels)] == [["y.png"], ["x.png"]]
