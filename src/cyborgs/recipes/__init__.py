"""Published runs and our own: a name, a function, a complete recipe. No torch here."""

from collections.abc import Callable

from cyborgs.recipes.cyborgs_coco import cyborgs_coco
from cyborgs.recipes.demo import demo
from cyborgs.recipes.small import small, small_byol
from cyborgs.runs.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "small": small,
    "small-byol": small_byol,
    "cyborgs-coco": cyborgs_coco,
    "demo": demo,
}
