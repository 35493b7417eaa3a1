"""Photos with a class per pixel in the real layouts, written small, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cyborgs.errors import UserError
from cyborgs.evaluation.sets.pixel_sets import open_pixels


def photo(path: Path, size: tuple[int, int] = (3, 2)) -> None:
    """Of (W, H)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 9, 9)).save(path)


def labels(path: Path, numbers) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(numbers, np.uint8)).save(path)


def pairs(root: Path, part: str, maps, photos: str = "images/{}", truth: str = "labels/{}") -> None:
    for k, numbers in enumerate(maps):
        photo(root / photos.format(part) / f"{k}.png")
        labels(root / truth.format(part) / f"{k}.png", numbers)


A = [[0, 1, 2], [2, 255, 1]]
B = [[1, 1, 1], [1, 1, 3]]


def opened(root: Path, name: str = "", **changes):
    return open_pixels(str(root), name, **({"seed": 0} | changes))


@pytest.mark.parametrize("truth", ["labels", "annotations", "masks"])
def test_folders_of_photos_and_labels(tmp_path, truth):
    pairs(tmp_path, "train", [A, B], truth=truth + "/{}")
    pairs(tmp_path, "val", [A], truth=truth + "/{}")
    labels(tmp_path / truth / "train/x.png", A)
    data = opened(tmp_path)
    assert data.counts == {
        "train": 2,
        "test": 1,
        "classes": 4,
        "skipped: label maps without a photo of these splits": 1,
    }
    assert data.train.truth(0).dtype == np.uint8
    assert data.train.truth(0).tolist() == A
    image, found = data.train.pair(1)
    assert image.shape == (2, 3, 3)
    assert found.tolist() == B
    assert (data.train.ignore, data.test.classes, data.train.names) == (255, 4, ())
    assert data.notes == ("1 classes have no test pixel and do not count: 3",)


def test_a_label_that_counts_nowhere_and_names_in_a_file(tmp_path):
    pairs(tmp_path, "train", [[[0, 1, 9]] * 2], "{}", "{}annot")
    pairs(tmp_path, "test", [[[0, 1, 9]] * 2], "{}", "{}annot")
    (tmp_path / "classes.txt").write_text("sky\nsea\n")
    data = opened(tmp_path, ignore=9)
    assert (data.train.classes, data.train.ignore, data.train.names) == (2, 9, ("sky", "sea"))
    assert data.train.truth(0).tolist() == [[0, 1, 9]] * 2
    with pytest.raises(UserError, match="names 2 classes, but classes is 3"):
        opened(tmp_path, classes=3)


def test_lists_of_pairs(tmp_path):
    root = tmp_path / "CamVid"
    pairs(root, "train", [[[0, 10, 11]] * 2] * 3, "{}", "{}annot")
    pairs(root, "val", [[[0, 1, 11]] * 2], "{}", "{}annot")
    (root / "train.txt").write_text("".join(f"CamVid/train/{k}.png CamVid/trainannot/{k}.png\n" for k in (0, 2)))
    (root / "val.txt").write_text("CamVid/val/0.png CamVid/valannot/0.png\n")
    for place in (root, tmp_path):
        data = opened(place, "camvid")
        assert (len(data.train), data.train.classes, data.train.ignore) == (2, 11, 11)
        assert (data.train.names[0], data.train.names[10]) == ("sky", "bicyclist")
    assert data.notes == (
        "1 classes of the test photos have no training pixel: building",
        "9 classes have no test pixel and do not count: pole, road, pavement, tree, sign symbol, ...",
    )
    (root / "trainannot/2.png").unlink()
    with pytest.raises(UserError, match=r"2\.png does not exist; 1 files are missing"):
        opened(root, "camvid")
    (root / "train.txt").write_text("/SegNet/CamVid/train/0.png /SegNet/CamVid/trainannot/0.png\n")
    with pytest.raises(UserError, match=r"train/2\.png: has no labels; 1 of 3 train photos"):
        opened(root, "camvid")
    (root / "train/2.png").unlink()
    data = opened(root, "camvid")
    assert (len(data.train), len(data.test), data.train.names[10]) == (2, 1, "bicyclist")


def test_a_described_set_with_panoptic_annotations(tmp_path):
    categories = [{"id": 1, "name": "cat"}, {"id": 7, "name": "sea"}]
    for part in ("train", "val"):
        for k in range(3):
            photo(tmp_path / part / f"{k}.jpg")
        segments = [{"id": 5, "category_id": 7, "iscrowd": 0}, {"id": 256, "category_id": 1, "iscrowd": 0}]
        said = [{"image_id": k, "file_name": f"{k}.png", "segments_info": segments} for k in (0, 2)]
        images = [{"id": k, "file_name": f"{k}.jpg", "height": 2, "width": 3} for k in range(3)]
        document = {"images": images, "annotations": said, "categories": categories}
        (tmp_path / f"{part}.json").write_text(json.dumps(document))
        rgb = np.zeros((2, 3, 3), np.uint8)
        rgb[0, :2, 0], rgb[1, :, 1] = 5, 1
        for k in (0, 2):
            Image.fromarray(rgb).save(tmp_path / part / f"{k}.png")
    # The JSON's folder of PNGs is the photos' folder here, so lists name the photos.
    for part in ("train", "val"):
        (tmp_path / f"{part}.txt").write_text("".join(f"{part}/{k}.jpg\n" for k in range(3)))
    (tmp_path / "set.yaml").write_text(
        "train: {photos: train.txt, labels: 'coco:train.json'}\nval: {photos: val.txt, labels: val.json}\n"
    )
    data = opened(tmp_path / "set.yaml")
    assert data.counts == {
        "train": 2,
        "test": 2,
        "classes": 2,
        "skipped: photos that the JSON files do not annotate": 2,
    }
    assert data.train.names == ("cat", "sea")
    assert data.train.truth(1).tolist() == [[1, 1, 255], [0, 0, 0]]
    assert [Path(data.train.name(i)).name for i in (0, 1)] == ["0.jpg", "2.jpg"]
    for text, message in (
        ("images: 3\n", "need train and val"),
        ("train: {}\n", "need val or test beside train"),
        ("train: {photos: train.txt}\nval: {}\n", "train: need photos .* and labels"),
        ("train: [\n", "cannot be read as YAML"),
        ("train: {photos: no, labels: x}\nval: {}\n", "train: need photos"),
        ("train: {photos: none, labels: x}\nval: {}\n", "none: no such folder or file"),
        ("train: {}\nval: {}\nnames: 3\n", "names: need a list of class names"),
    ):
        (tmp_path / "set.yaml").write_text(text)
        with pytest.raises(UserError, match=message):
            opened(tmp_path / "set.yaml")


def test_voc(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    for part, names in (("train", ["2007_1", "2007_2"]), ("val", ["2007_3"])):
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            photo(root / f"JPEGImages/{name}.jpg")
            labels(root / f"SegmentationClass/{name}.png", [[0, 15, 255], [0, 20, 255]])
    data = opened(tmp_path, "voc-segmentation")
    assert (len(data.train), len(data.test), data.train.classes, data.train.names[20]) == (2, 1, 21, "tvmonitor")
    assert data.train.truth(0).tolist() == [[0, 15, 255], [0, 20, 255]]
    (root / "SegmentationClass/2007_2.png").unlink()
    with pytest.raises(UserError, match=r"2007_2\.jpg: has no labels; 1 of 2 train photos have none"):
        opened(tmp_path, "voc-segmentation")
    (root / "JPEGImages/2007_1.jpg").unlink()
    with pytest.raises(UserError, match=r"2007_1\.jpg does not exist; 1 of 2"):
        opened(root, "voc-segmentation")


def test_ade20k(tmp_path):
    for part in ("training", "validation"):
        photo(tmp_path / f"images/{part}/ADE_{part}.jpg")
        labels(tmp_path / f"annotations/{part}/ADE_{part}.png", [[0, 1, 2], [150, 1, 2]])
    data = opened(tmp_path, "ade20k")
    assert (data.train.classes, data.train.ignore) == (150, 255)
    assert data.test.truth(0).tolist() == [[255, 0, 1], [149, 0, 1]]
    labels(tmp_path / "annotations/validation/ADE_validation.png", [[151, 1, 2]] * 2)
    with pytest.raises(UserError, match=r"ADE_validation\.png: holds 151"):
        opened(tmp_path, "ade20k")


@pytest.mark.parametrize("ending", ["labelTrainIds", "labelIds"])
def test_cityscapes(tmp_path, ending):
    numbers = {"labelTrainIds": [[0, 13, 255], [255, 18, 1]], "labelIds": [[7, 26, 0], [3, 33, 8]]}[ending]
    for part, city in (("train", "ulm"), ("val", "bonn")):
        photo(tmp_path / f"leftImg8bit/{part}/{city}/{city}_0_1_leftImg8bit.png")
        labels(tmp_path / f"gtFine/{part}/{city}/{city}_0_1_gtFine_{ending}.png", numbers)
    data = opened(tmp_path, "cityscapes")
    assert (data.train.classes, data.train.names[0]) == (19, "road")
    assert data.test.truth(0).tolist() == [[0, 13, 255], [255, 18, 1]]
    photo(tmp_path / "leftImg8bit/train/jena/jena_0_1_leftImg8bit.png")
    with pytest.raises(UserError, match=r"jena_0_1_leftImg8bit\.png: has no labels; 1 of 2 train"):
        opened(tmp_path, "cityscapes")


def test_label_ids_given_for_training_ids(tmp_path):
    for part in ("train", "val"):
        photo(tmp_path / f"leftImg8bit/{part}/ulm/ulm_{part}_1_leftImg8bit.png")
        labels(tmp_path / f"gtFine/{part}/ulm/ulm_{part}_1_gtFine_labelTrainIds.png", [[7, 26, 0]] * 2)
    with pytest.raises(UserError, match=r"holds 26, training ids are 0 to 18 and 255\. Are these labelIds"):
        opened(tmp_path, "cityscapes")


def test_coco_stuff_10k(tmp_path):
    (tmp_path / "imageLists").mkdir()
    (tmp_path / "annotations").mkdir()
    for part, names in (("train", ["COCO_1", "COCO_2"]), ("test", ["COCO_3"])):
        (tmp_path / f"imageLists/{part}.txt").write_text("\n".join(names))
        for name in names:
            photo(tmp_path / f"images/{name}.jpg")
            savemat(tmp_path / f"annotations/{name}.mat", {"S": np.array([[0, 1, 13], [182, 92, 1]], np.uint8)})
    data = opened(tmp_path, "coco-stuff-10k")
    assert (len(data.train), len(data.test), data.train.classes) == (2, 1, 171)
    assert data.train.truth(0).tolist() == [[255, 0, 11], [170, 80, 0]]
    savemat(tmp_path / "annotations/COCO_3.mat", {"S": np.ones((3, 3), np.uint8)})
    with pytest.raises(UserError, match=r"COCO_3\.jpg has 3 x 2 pixels, but its label map .*COCO_3\.mat has 3 x 3"):
        opened(tmp_path, "coco-stuff-10k")


def stuff(root: Path, where: str = "annotations") -> Path:
    for part in ("train2017", "val2017"):
        for k in range(2):
            photo(root / f"images/{part}/00{k}.jpg")
            labels(root / f"{where}/{part}/00{k}.png", [[255, 0, 10], [12, 91, 181]])
    return root


@pytest.mark.parametrize("where", ["annotations", "stuffthingmaps"])
def test_coco_stuff_164k(tmp_path, where):
    data = opened(stuff(tmp_path, where), "coco-stuff-164k")
    assert (len(data.train), data.train.classes) == (2, 171)
    assert data.train.truth(0).tolist() == [[255, 0, 10], [11, 80, 170]]
    labels(tmp_path / f"{where}/val2017/001.png", [[0, 1, 182]] * 2)
    with pytest.raises(UserError, match=r"001\.png: holds 182.*Are these numbers of the 10k set"):
        opened(tmp_path, "coco-stuff-164k")


def test_coco_stuff_27(tmp_path):
    data = opened(stuff(tmp_path), "coco-stuff-27")
    assert (len(data.test), data.train.classes) == (2, 27)
    assert data.train.truth(0).tolist() == [[255, 9, 8], [8, 17, 24]]
    assert data.notes[0].startswith("not PiCIE's photos")
    for part in ("train2017", "val2017"):
        path = tmp_path / "curated" / part / "Coco164kFull_Stuff_Coarse_7.txt"
        path.parent.mkdir(parents=True)
        path.write_text("001\n")
    data = opened(tmp_path, "coco-stuff-27")
    assert (len(data.train), len(data.test)) == (1, 1)
    assert not any("PiCIE" in note for note in data.notes)
    path.write_text("001\n009\n")
    with pytest.raises(UserError, match=r"009\.jpg does not exist; 1 of 2"):
        opened(tmp_path, "coco-stuff-27")


def test_draws_and_shares_are_nested(tmp_path):
    pairs(tmp_path, "train", [B] * 20)
    pairs(tmp_path, "val", [B] * 8)
    data = opened(tmp_path, images=10, test_images=3)
    assert (len(data.train), len(data.test)) == (10, 3)
    assert data.left_out == {"train photos that were not drawn": 10, "test photos that were not drawn": 5}
    assert set(opened(tmp_path, images=4).train.photos.paths) < set(data.train.photos.paths)
    assert opened(tmp_path, images=10, seed=1).train.photos != data.train.photos
    parts = [set(data.share(share, 5).photos.paths) for share in (0.01, 0.25, 0.5, 1.0)]
    assert [len(p) for p in parts] == [1, 3, 5, 10]
    assert parts[0] < parts[1] < parts[2] < parts[3]
    assert data.fingerprint == opened(tmp_path, images=10, test_images=3).fingerprint
    assert data.fingerprint != opened(tmp_path, images=9, test_images=3).fingerprint


def test_a_label_map_of_the_photo_before_it_was_turned(tmp_path):
    pairs(tmp_path, "train", [A])
    pairs(tmp_path, "val", [A])
    picture = Image.new("RGB", (3, 2))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "images/train/0.png", exif=exif)
    with pytest.raises(UserError, match=r"train/0\.png has 2 x 3 pixels, but its label map .*0\.png has 3 x 2"):
        opened(tmp_path)


def test_what_is_refused(tmp_path):
    pairs(tmp_path, "train", [A, B])
    pairs(tmp_path, "val", [A])

    def refused(message: str, name: str = "", **changes) -> None:
        with pytest.raises(UserError, match=message):
            opened(tmp_path, name, **changes)

    refused(r"no layout of label maps is named 'x'\. There are: camvid", "x")
    refused(r"train/1\.png: holds label 3; classes are 0 to 2", classes=3)
    refused("need at most 255 classes, found 256", ignore=9)
    refused("has no ImageSets/Segmentation/train.txt", "voc-segmentation")
    refused("has no leftImg8bit/train", "cityscapes")
    (tmp_path / "labels/train/0.png").unlink()
    refused(r"images/train/0\.png: has no labels; 1 of 2 train photos have none")
    labels(tmp_path / "labels/train/0.png", [[0, 1]])
    refused(r"train/0\.png has 3 x 2 pixels, but its label map .*labels/train/0\.png has 2 x 1")
    with pytest.raises(UserError, match="nowhere: no such folder or file"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"need train\.txt and val.txt"):
        opened(tmp_path / "empty")
