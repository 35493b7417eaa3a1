"""Views per core: two 224 views and their label map from a 640x480 JPEG, beside decoding alone and other pipelines.

    python benchmarks/views.py [--images 40] [--rounds 7]

One thread, all photos in memory, CPU time of this process. The pipelines take turns; each draws the same for a photo in
every round, and the shortest time of a photo counts, so that other work on the machine disturbs little. Photos come from coco_subset.tar in the folder CYBORGS_TEST_DATA, else from scikit-image. albumentations is measured where it
is installed; it brings an OpenCV of its own, so that needs another environment.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from cyborgs.data.decode import decode
from cyborgs.seeds import numpy_generator
from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.sample import Photo, make_views

Pixels = np.ndarray
SPEC = ViewSpec()
MAP_SIZE = (60, 80)


def photos(count: int) -> list[Pixels]:
    folder = os.environ.get("CYBORGS_TEST_DATA")
    found: list[Pixels] = []
    if folder and (Path(folder) / "coco_subset.tar").exists():
        with tarfile.open(Path(folder) / "coco_subset.tar") as tar:
            for member in tar:
                if len(found) == count:
                    break
                if member.name.endswith(".jpg") and (file := tar.extractfile(member)) is not None:
                    found.append(np.asarray(Image.open(file).convert("RGB")))
    else:
        from skimage import data

        found = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    return found


def jpegs(count: int) -> list[bytes]:
    sized = (cv2.resize(p, (640, 480), interpolation=cv2.INTER_AREA) for p in photos(count))
    return [simplejpeg.encode_jpeg(np.ascontiguousarray(p), quality=90) for p in sized]


def decoding(data: bytes, i: int) -> object:
    return simplejpeg.decode_jpeg(data, "RGB")


def ours(data: bytes, i: int) -> object:
    label_map = MAPS[i % len(MAPS)]
    return make_views(Photo(decode(data, "photo"), label_map), SPEC, numpy_generator(0, "sample", 0, i))


def ours_area(data: bytes, i: int) -> object:
    spec = ViewSpec(interpolation="area")
    return make_views(Photo(decode(data, "photo"), MAPS[i % len(MAPS)]), spec, numpy_generator(0, "sample", 0, i))


def torchvision_view(crop: Crop) -> v2.Compose:
    jitter = v2.ColorJitter(crop.brightness, crop.contrast, crop.saturation, crop.hue)
    return v2.Compose(
        [
            v2.RandomResizedCrop(SPEC.size, scale=crop.area, ratio=crop.ratio),
            v2.RandomHorizontalFlip(crop.flip),
            v2.RandomApply([jitter], crop.jitter),
            v2.RandomGrayscale(crop.grey),
            v2.RandomApply([v2.GaussianBlur(23, crop.sigma)], crop.blur),
            v2.RandomSolarize(128, crop.solarise),
            v2.PILToTensor(),
        ]
    )


TORCHVISION = [torchvision_view(crop) for crop in SPEC.crops]


def pil_torchvision(data: bytes, i: int) -> object:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    label_map = tv_tensors.Mask(torch.from_numpy(MAPS[i % len(MAPS)].repeat(8, 0).repeat(8, 1)))
    torch.manual_seed(i)
    return [view(image, label_map) for view in TORCHVISION]


def albumentations_pipeline() -> Callable[[bytes, int], object]:
    import albumentations as A

    def view(crop: Crop) -> A.Compose:
        jitter = (crop.brightness, crop.contrast, crop.saturation, crop.hue)
        return A.Compose(
            [
                A.RandomResizedCrop((SPEC.size, SPEC.size), scale=crop.area, ratio=crop.ratio),
                A.HorizontalFlip(p=crop.flip),
                A.ColorJitter(*jitter, p=crop.jitter),
                A.ToGray(p=crop.grey),
                A.GaussianBlur(blur_limit=(23, 23), sigma_limit=crop.sigma, p=crop.blur),
                A.Solarize(threshold_range=(0.5, 0.5), p=crop.solarise),
            ]
        )

    views = [view(crop) for crop in SPEC.crops]

    def pil_albumentations(data: bytes, i: int) -> object:
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        label_map = MAPS[i % len(MAPS)].repeat(8, 0).repeat(8, 1)
        for v in views:
            v.set_random_seed(i)
        return [v(image=image, mask=label_map)["image"].transpose(2, 0, 1).copy() for v in views]

    return pil_albumentations


def label_maps() -> list[Pixels]:
    """Blobs of 30 labels, as clusters of features are."""
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 30, (12, 16), dtype=np.uint8) for _ in range(8)]
    return [cv2.resize(c, MAP_SIZE[::-1], interpolation=cv2.INTER_NEAREST) for c in coarse]


MAPS = label_maps()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    work: dict[str, Callable[[bytes, int], object]] = {
        "decoding alone (simplejpeg)": decoding,
        "ours": ours,
        "ours, area": ours_area,
        "PIL + torchvision v2": pil_torchvision,
    }
    if importlib.util.find_spec("albumentations"):
        work["PIL + albumentations"] = albumentations_pipeline()
    data = jpegs(options.images)
    times = {name: np.full((options.rounds, len(data)), np.inf) for name in work}
    for i, item in enumerate(data):  # photo by photo, so that a slow second hits all pipelines alike
        for number in range(options.rounds):
            for name, task in work.items():
                start = time.process_time()
                task(item, i)
                times[name][number, i] = time.process_time() - start
    rate = {name: len(data) / values.min(0).sum() for name, values in times.items()}
    print(f"{len(data)} photos 640x480, {options.rounds} rounds, images/s of one core")
    for name, value in rate.items():
        print(f"  {name:30s} {value:8.1f}   (median round {len(data) / np.median(times[name], 0).sum():.1f})")
    mine = rate["ours"]
    print(f"  ours / decoding alone: {mine / rate['decoding alone (simplejpeg)']:.3f} (goal 0.30, going for 0.40)")
    print(f"  ours / PIL + torchvision v2: {mine / rate['PIL + torchvision v2']:.2f} (goal 7)")
    if "PIL + albumentations" in rate:
        print(f"  ours / PIL + albumentations: {mine / rate['PIL + albumentations']:.2f} (goal 1.6)")


if __name__ == "__main__":
    main()
