"""Which ways to read pixels the note on colours tells apart on real photos.

    python benchmarks/studies/colour_order.py TRAIN_PHOTOS PHOTOS [PHOTOS ...]

Random ResNet-18s get the statistics of TRAIN_PHOTOS (a folder) in their first BatchNorm, read in RGB and in other ways; then
each is given RGB of each folder of PHOTOS, as ``cyborgs evaluate`` and ``compare`` do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cyborgs.data.decode import decode
from cyborgs.data.listing import list_images
from cyborgs.features.colour_order import CAFFE_MEAN, PHOTOS, colour_warning
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig

MEAN, STD = 255 * torch.tensor([0.485, 0.456, 0.406]), 255 * torch.tensor([0.229, 0.224, 0.225])
WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "RGB": lambda x: (x - MEAN) / STD,
    "BGR": lambda x: ((x - MEAN) / STD).flip(-1),
    "RGB of 0..255, less the mean": lambda x: x - torch.tensor(CAFFE_MEAN),
    "BGR of 0..255, less the mean": lambda x: (x - torch.tensor(CAFFE_MEAN)).flip(-1),
    "BGR of 0..1, not normalised": lambda x: (x / 255).flip(-1),
}


def drawn(folder: Path, count: int) -> Iterator[np.ndarray]:
    """Photos of a folder, drawn without repeats."""
    names = list_images(folder).names
    for i in np.random.default_rng(0).permutation(len(names))[:count].tolist():
        yield decode((folder / names[i]).read_bytes(), names[i])


@torch.no_grad()
def network(folder: Path, read: Callable[[Tensor], Tensor], count: int) -> Backbone:
    """A random network whose first BatchNorm has the statistics of photos read so."""
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="resnet18")).eval()
    norm = backbone.trunk.bn1
    pixels, total, squares = 0, torch.zeros(64).double(), torch.zeros(64).double()
    for photo in drawn(folder, count):
        x = read(torch.from_numpy(photo).float()).permute(2, 0, 1)[None]
        y = backbone.trunk.conv1(x)[0].flatten(1).double()
        pixels, total, squares = pixels + y.shape[1], total + y.sum(1), squares + y.square().sum(1)
    norm.running_mean.copy_(total / pixels)
    norm.running_var.copy_(squares / pixels - (total / pixels).square())
    return backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=150, help="photos that the statistics are of")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, read in WAYS.items():
        backbone = network(args.train, read, args.count)
        for folder in args.photos:
            said = colour_warning(backbone, drawn(folder, PHOTOS))
            named = [way for way in list(WAYS)[2:] if said is not None and way in said]
            print(
                f"{name:30} {str(folder)[-24:]:24} {'no note' if said is None else ' / '.join(named) or said}",
                flush=True,
            )


if __name__ == "__main__":
    main()
