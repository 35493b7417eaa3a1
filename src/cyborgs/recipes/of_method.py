"""The recipe of a method that has none of its own: what its settings ask for, everything else as in ``small``."""

from dataclasses import replace

from cyborgs.masks.config import MaskConfig, SourceName
from cyborgs.methods.registry import settings_of
from cyborgs.recipes.small import small
from cyborgs.runs.recipe import Recipe


def of_method(name: str) -> Recipe:
    """A method with its own views and optimiser, and masks of its own features where it needs masks.

    A method that needs masks and makes none itself gets those of Felzenszwalb.

    Command: cyborgs pretrain METHOD --data photos/ --out runs/first

    Raises:
        UserError: there is no such method, or it cannot be loaded.
    """
    method, base = settings_of(name)(), small()
    source: SourceName = "none"
    if "masks" in method.artefacts:
        source = "bootstrap" if method.bootstrapping else "felzenszwalb"
    return replace(
        base,
        name=name,
        method=method,
        views=method.default_views(),
        optimizer=method.default_optimizer(),
        masks=MaskConfig(source="none") if source == "none" else replace(base.masks, source=source),
    )
