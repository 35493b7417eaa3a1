"""For the built-in scenes: minutes on two CPU cores."""

from dataclasses import replace

from cyborgs.masks.config import MaskConfig
from cyborgs.recipes.small import small, small_method
from cyborgs.runs.recipe import Recipe
from cyborgs.views.config import ViewSpec


def demo() -> Recipe:
    """ResNet-18 at 64 pixels on the scenes that ``cyborgs demo`` makes.

    Command: cyborgs demo
    Hardware: 2 CPU cores. Time: about 5 minutes. Result: in the report, whatever it honestly is.
    """
    base = small()
    method = replace(small_method(), warmup_steps=24, refresh_steps=40, cluster_steps=24, clusters=(2, 16), hidden=1024)
    return replace(
        base,
        name="demo",
        method=method,
        views=ViewSpec(size=64, grid=4),
        masks=MaskConfig(source="bootstrap"),
        epochs=12,
        batch_size=32,
        log_every=4,
        snapshot_refreshes=True,
    )
