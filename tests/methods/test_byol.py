"""BYOL: the contract, and what is special about it."""

from __future__ import annotations

import torch

from cyborgs.methods.method import Method
from cyborgs.structures import Batch, View
from tests.conftest import tiny_byol
from tests.methods.contract import MethodContract, make_batch, plans_of


class TestByol(MethodContract):
    recipe = tiny_byol()

    def test_needs_no_maps(self, method: Method) -> None:
        batch = make_batch()
        bare = Batch(tuple(View(v.images, v.geometry) for v in batch.views), batch.indices, 0)
        with_maps = self.step(method, plans_of(self.recipe)[0], batch)
        assert torch.isfinite(self.step(method, plans_of(self.recipe)[0], bare).losses["byol"])
        assert 0 <= float(with_maps.losses["byol"].detach()) <= 8
