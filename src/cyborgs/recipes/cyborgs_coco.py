"""The paper's run on COCO train2017 (Sections 3 and 4.1)."""

from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.runs.recipe import Recipe


def cyborgs_coco() -> Recipe:
    """ResNet-50, 800 epochs, global batch 64, LARS 0.1: every default of the settings is the paper's.

    Command: torchrun --nproc-per-node 8 -m cyborgs pretrain cyborgs-coco --data coco/train2017 --out runs/coco
    Hardware: 8 GPUs (the paper: 8 RTX 3090). Time: not measured.
    Result: not measured. The paper's: VOC07 classification 86.9 mAP, COCO boxes 42.0 AP.
    """
    return Recipe(name="cyborgs-coco", method=CyborgsConfig(), snapshots=(5, 25, 50, 100, 200, 500, 800))
