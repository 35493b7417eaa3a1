"""A folder of VOC 2007's layout out of COCO's instances, to run `cyborgs evaluate voc07` where VOC itself is not at hand.

    python benchmarks/studies/voc_from_coco.py COCO OUT

COCO holds ``images/{train,val}2017`` (or ``{train,val}2017``) and ``annotations/instances_{train,val}2017.json``; photos
that are not there are left out. OUT/VOC2007 gets links to the photos, and the lists of the 20 classes that both data
sets have: train2017 is trainval, val2017 is test. A class that a photo holds as crowds alone counts as difficult.
The figures compare backbones; they are not VOC 2007's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cyborgs.evaluation.sets.voc_lists import CLASSES, LISTS

IN_COCO = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
PARTS = {"trainval": "train2017", "test": "val2017"}


def write_part(coco: Path, out: Path, part: str) -> dict[str, int]:
    """Photos with each class."""
    found = json.loads((coco / "annotations" / f"instances_{PARTS[part]}.json").read_text())
    folder = next(f for f in (coco / "images" / PARTS[part], coco / PARTS[part]) if f.is_dir())
    number = {c["name"]: c["id"] for c in found["categories"]}
    photos = {i["id"]: folder / i["file_name"] for i in found["images"]}
    photos = {i: path.resolve() for i, path in sorted(photos.items()) if path.is_file()}
    whole: dict[int, set[int]] = {}
    crowds: dict[int, set[int]] = {}
    for a in found["annotations"]:
        (crowds if a["iscrowd"] else whole).setdefault(a["category_id"], set()).add(a["image_id"])
    for path in photos.values():
        link = out / "JPEGImages" / f"{path.stem}.jpg"
        if not link.is_symlink():
            link.symlink_to(path)
    counts = {"photos": len(photos)}
    for name in CLASSES:
        category = number[IN_COCO.get(name, name)]
        present, difficult = whole.get(category, set()), crowds.get(category, set())
        lines = [f"{p.stem} {1 if i in present else 0 if i in difficult else -1:2d}\n" for i, p in photos.items()]
        (out / LISTS / f"{name}_{part}.txt").write_text("".join(lines))
        counts[name] = sum(i in present for i in photos)
    return counts


def write_folder(coco: Path, out: Path) -> dict[str, dict[str, int]]:
    """OUT/VOC2007; photos with each class, by part."""
    for folder in (out / "VOC2007" / LISTS, out / "VOC2007" / "JPEGImages"):
        folder.mkdir(parents=True, exist_ok=True)
    return {part: write_part(coco, out / "VOC2007", part) for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coco", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    for part, counts in write_folder(args.coco, args.out).items():
        print(part, json.dumps(counts))


if __name__ == "__main__":
    main()
