"""For 1,000 to 20,000 photos, on one GPU or a CPU."""

from dataclasses import replace

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.masks.config import MaskConfig
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.models.config import BackboneConfig
from cyborgs.runs.recipe import Recipe
from cyborgs.views.config import ViewSpec


def small_method() -> CyborgsConfig:
    """W, N and M in steps, since an epoch of few photos is short; few clusters, so that regions are not slivers."""
    return CyborgsConfig(
        warmup_steps=84,
        refresh_steps=250,
        cluster_steps=84,
        clusters=(2, 24),
        hidden=2048,
        momentum=0.99,
        linked_start=True,
    )


def small() -> Recipe:
    """ResNet-18 at 128 pixels, 100 epochs; warm-up, refresh and loss 2 counted in steps, coarser masks than the paper's.

    Command: cyborgs pretrain --data photos/ --out runs/first
    Hardware: 2 CPU cores or one GPU. Time and result: see docs/measurements.md.
    """
    return Recipe(
        name="small",
        method=small_method(),
        backbone=BackboneConfig(name="resnet18"),
        views=ViewSpec(size=128, grid=8),
        masks=MaskConfig(source="bootstrap", short_side=320),
        optimizer=OptimizerConfig(lr=0.6, warmup_fraction=0.05, schedule="cosine"),
        epochs=100,
        checkpoint_every=100,
    )


def small_byol() -> Recipe:
    """BYOL with everything else as in ``small``: the comparison without masks.

    Command: cyborgs pretrain small-byol --data photos/ --out runs/byol
    Hardware, time and result: see docs/measurements.md.
    """
    base = small()
    return replace(base, name="small-byol", method=ByolConfig(hidden=2048), masks=MaskConfig(source="none"))
