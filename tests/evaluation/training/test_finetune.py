"""Training with labels through the engine's loop, beside a loop written out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cyborgs.engine.contract import Stopped
from cyborgs.engine.signals import Stop
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.training.batches import LabelledBatches
from cyborgs.evaluation.training.config import FineTuneConfig
from cyborgs.evaluation.training.finetune import Objective, batch_of, fine_tune, rate, steps_of

CONFIG = FineTuneConfig(epochs=3, batch_size=4, lr=0.05, head_lr_factor=10.0, checkpoint_every=2)


class Noise:
    """Images of noise whose mean colour is their class, shifted by what is drawn."""

    def __len__(self) -> int:
        return 10

    def sample(self, i: int, draw: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        image = np.full((8, 8, 3), 40, np.uint8)
        image[:, :, i % 2] = 180 + draw.integers(0, 20)
        return image, np.array(i % 2, np.int64)


class Small(Objective):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        with torch.random.fork_rng():
            self.body = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)

    def losses(self, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        x = F.relu(self.body(images.float() / 255)).mean(dim=(2, 3))
        return {"class": F.cross_entropy(self.head(x), targets)}

    def groups(self, head_lr_factor: float) -> list[dict[str, Any]]:
        return [
            {"params": list(self.body.parameters())},
            {"params": list(self.head.parameters()), "lr_scale": head_lr_factor},
        ]


def trained(context: Context, config: FineTuneConfig = CONFIG, stop: Stop | None = None) -> dict[str, Tensor]:
    objective = Small()
    fine_tune(objective, Noise(), config, context, names=["class"], identity={"data": "noise"}, stop=stop)
    return {name: value.clone() for name, value in objective.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_plain_sgd_with_a_rate_for_each_group() -> None:
    found = trained(Context(seed=3))
    network = Small()
    optimizer = torch.optim.SGD(network.groups(1.0), 0.05, 0.9, weight_decay=1e-4)
    batches = LabelledBatches(Noise(), 4, 2, 3, 0, False)
    for step in range(6):
        (batch,) = next(iter(batches(step // 2, step % 2)))
        now = 0.05 * 0.2 ** ((step >= 4) + (step >= 5))  # milestones 0.6 and 0.8 of 6 steps, rounded
        for group, factor in zip(optimizer.param_groups, (1.0, 10.0), strict=True):
            group["lr"] = now * factor
        optimizer.zero_grad()
        network.losses(batch.images, batch.targets)["class"].backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_the_number_of_workers_changes_nothing() -> None:
    assert same(trained(Context(seed=1)), trained(Context(seed=1, workers=4)))


def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    stop = Stop()
    stop.ask()
    for _ in range(20):
        try:
            resumed = trained(Context(seed=2, out=tmp_path), stop=stop)
            break
        except Stopped:
            stop = Stop() if stop and (tmp_path / "training/checkpoints/step-000003").exists() else _asked()
    assert same(resumed, trained(Context(seed=2)))


def _asked() -> Stop:
    stop = Stop()
    stop.ask()
    return stop


def test_a_finished_training_is_found_and_another_is_refused(tmp_path: Path) -> None:
    first = trained(Context(seed=2, out=tmp_path))
    assert same(first, trained(Context(seed=2, out=tmp_path)))
    with pytest.raises(UserError, match="another training"):
        trained(Context(seed=2, out=tmp_path), replace(CONFIG, lr=0.1))
    with pytest.raises(UserError, match="another seed"):
        trained(Context(seed=3, out=tmp_path))


def test_global_generators_stay_as_they_were() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    wanted, wanted_np = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    trained(Context(seed=1))
    assert torch.equal(torch.rand(3), wanted)
    assert np.array_equal(np.random.rand(3), wanted_np)


def test_every_pass_holds_each_image_once() -> None:
    batches = LabelledBatches(Noise(), 4, 5, 0, 0, False)
    numbers = [i for epoch in range(2) for step in range(5) for i in batches.indices(epoch, step)]
    for first in range(0, 40, 10):
        assert sorted(numbers[first : first + 10]) == list(range(10))


def test_rates() -> None:
    config = FineTuneConfig(lr=1.0, schedule="step", milestones=(0.6, 0.8), gamma=0.2)
    found = [rate(config, s, 20) for s in (0, 11, 12, 15, 16, 19)]
    np.testing.assert_allclose(found, [1, 1, 0.2, 0.2, 0.04, 0.04])
    poly = FineTuneConfig(lr=0.01, schedule="poly", min_lr=1e-4)
    assert rate(poly, 0, 100) == 0.01
    for step in (1, 50, 99):  # mmcv 1.x, PolyLrUpdaterHook.get_lr
        coeff = (1 - step / 100) ** 0.9
        assert rate(poly, step, 100) == pytest.approx((0.01 - 1e-4) * coeff + 1e-4, rel=1e-12)
    assert rate(poly, 100, 100) == 1e-4
    cosine = FineTuneConfig(lr=2.0, schedule="cosine")
    assert rate(cosine, 50, 100) == pytest.approx(1.0)


def test_steps() -> None:
    assert steps_of(FineTuneConfig(epochs=20, batch_size=256), 12_811) == (20, 50)
    assert steps_of(FineTuneConfig(epochs=3, batch_size=256), 10) == (3, 1)
    assert steps_of(FineTuneConfig(iterations=7), 10) == (1, 7)


def test_epochs_are_passes_where_images_are_fewer_than_a_batch() -> None:
    """Ten images, batch 256: each is drawn once an epoch, and what is learnt is a loop over the ten's."""
    seen: list[int] = []

    class Counted(Noise):
        def sample(self, i: int, draw: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[Any]]:
            seen.append(i)
            return super().sample(i, draw)

    config = replace(CONFIG, batch_size=256, milestones=(), head_lr_factor=1.0)
    objective = Small()
    fine_tune(objective, Counted(), config, Context(seed=3), names=["class"], identity={})
    assert sorted(seen) == sorted(3 * list(range(10)))
    network = Small()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=1e-4)
    for epoch in range(3):
        (batch,) = next(iter(LabelledBatches(Noise(), 10, 1, 3, 0, False)(epoch)))
        optimizer.zero_grad()
        network.losses(batch.images, batch.targets)["class"].backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(objective.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_a_batch_of_few_images() -> None:
    epochs, steps = FineTuneConfig(epochs=3, batch_size=256), FineTuneConfig(iterations=7, batch_size=16)
    assert [batch_of(epochs, n) for n in (1, 2, 20, 256, 999)] == [2, 2, 20, 256, 256]
    assert batch_of(replace(epochs, batch_size=1), 1) == 1
    assert batch_of(steps, 10) == 16


def test_a_stopped_training_of_few_images_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config, stop = replace(CONFIG, epochs=4, batch_size=256, checkpoint_every=1), _asked()
    with pytest.raises(Stopped):
        trained(Context(seed=2, out=tmp_path), config, stop)
    assert same(trained(Context(seed=2, out=tmp_path), config), trained(Context(seed=2), config))


def test_no_image() -> None:
    class Nothing(Noise):
        def __len__(self) -> int:
            return 0

    with pytest.raises(UserError, match="no training image"):
        fine_tune(Small(), Nothing(), CONFIG, Context(), names=["class"], identity={})
