"""Six crops of two sizes, one of another photo, boxes, a saliency map: the whole contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.masks.config import MaskConfig, SelectiveSearchConfig
from cyborgs.prepare.config import PrepareConfig
from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.samplers import AroundBox, Overlapping, Salient
from tests.conftest import tiny_recipe
from tests.methods.contract import MethodContract
from tests.methods.distributions import install
from tests.methods.toy_six.settings import ToySixConfig
from tests.runs.test_pretrain import run

VIEWS = ViewSpec(
    size=64,
    grid=4,
    crops=(
        Crop(),
        Crop(sampler=Overlapping(0, tries=10)),
        Crop(sampler=Salient(), grid=8),
        Crop(size=32, sampler=AroundBox(tries=0)),
        Crop(size=32, sampler=AroundBox(like=3)),
        Crop(size=32, photo="neighbours"),
    ),
)


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        home = Path(__file__).parents[2]
        install(tmp_path_factory.mktemp("site"), "toy-six", {"toy-six": "tests.methods.toy_six"}, patch, packages=home)
        yield


class TestToySix(MethodContract):
    recipe = tiny_recipe(
        name="toy-six",
        method=ToySixConfig(),
        masks=MaskConfig(source="none"),
        views=VIEWS,
        prepare=PrepareConfig(boxes=SelectiveSearchConfig(min_side=8, boxes=5), neighbours=3),
        epochs=4,
    )

    def test_four_loader_processes_change_nothing(self, whole: tuple[Path, Path], tmp_path: Path) -> None:
        photos, folder = whole
        run(replace(self.recipe, workers=4), photos, tmp_path / "run")
        name = "backbone.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes()
