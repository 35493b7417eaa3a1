"""The schedule of Section 3.4 and 4.1, without a network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.methods.settings import epochs_from_steps
from cyborgs.structures import EpochPlan

PAPER = CyborgsConfig()
WARM = EpochPlan(0, (), {"cluster": 1.0}, "warm-up")
CONTRAST = {"contrast": 1.0}
BOTH = {"contrast": 1.0, "cluster": 0.1}
MASKS = ("masks",)


@pytest.mark.parametrize(
    ("epoch", "refresh", "losses"),
    [
        (0, (), {"cluster": 1.0}),
        (4, (), {"cluster": 1.0}),
        (5, MASKS, BOTH),
        (6, (), CONTRAST),
        (9, (), CONTRAST),
        (10, (), BOTH),
        (99, (), CONTRAST),
        (100, MASKS, BOTH),
        (101, (), CONTRAST),
        (200, MASKS, BOTH),
        (700, MASKS, BOTH),
        (799, (), CONTRAST),
    ],
)
def test_the_papers_schedule(epoch: int, refresh: tuple[str, ...], losses: dict[str, float]) -> None:
    plan = PAPER.plan(epoch)
    assert (plan.epoch, plan.refresh, dict(plan.losses)) == (epoch, refresh, losses)
    assert plan.phase == ("warm-up" if epoch < 5 else "training")


def refreshes(config: CyborgsConfig, epochs: int = 800) -> list[int]:
    return [e for e in range(epochs) if config.plan(e).refresh]


def with_cluster(config: CyborgsConfig, epochs: int = 800) -> list[int]:
    return [e for e in range(epochs) if "cluster" in config.plan(e).losses]


def test_refreshes_of_the_paper() -> None:
    assert refreshes(PAPER) == [5, 100, 200, 300, 400, 500, 600, 700]


@pytest.mark.parametrize(
    ("warmup", "every", "expected"),
    [
        (5, 0, [5]),  # N = 0: only once
        (0, 100, [0, 100, 200]),  # W = 0: cycle 0 comes from random weights
        (0, 0, [0]),
        (5, 5, [5, *range(10, 300, 5)]),  # a multiple of N that is W counts once
        (5, 3, [5, *range(6, 300, 3)]),  # multiples of N up to W are left out
        (150, 100, [150, 200]),
    ],
)
def test_refreshes(warmup: int, every: int, expected: list[int]) -> None:
    assert refreshes(replace(PAPER, warmup_epochs=warmup, refresh_every=every), 300) == expected


def test_loss_2_is_added_every_m_epochs() -> None:
    assert with_cluster(PAPER, 21) == [0, 1, 2, 3, 4, 5, 10, 15, 20]
    assert with_cluster(replace(PAPER, cluster_every=1), 7) == list(range(7))
    assert with_cluster(replace(PAPER, cluster_every=0), 50) == [0, 1, 2, 3, 4]


def test_lambda_0_keeps_the_warm_up() -> None:
    config = replace(PAPER, cluster_weight=0.0)
    assert with_cluster(config, 50) == [0, 1, 2, 3, 4]
    assert config.plan(0).losses == {"cluster": 1.0}


def test_no_warm_up_starts_with_the_contrast() -> None:
    assert replace(PAPER, warmup_epochs=0).plan(0) == EpochPlan(0, MASKS, BOTH, "training", ("labels",))


def test_byol_does_the_same_in_every_epoch() -> None:
    assert all(ByolConfig().plan(e) == EpochPlan(e, (), {"byol": 1.0}) for e in (0, 5, 100))


@pytest.mark.parametrize(
    ("steps", "per_epoch", "epochs"), [(0, 42, 0), (1, 42, 1), (84, 42, 2), (100, 42, 2), (110, 42, 3)]
)
def test_steps_become_whole_epochs(steps: int, per_epoch: int, epochs: int) -> None:
    assert epochs_from_steps(steps, per_epoch) == epochs


def test_resolved_settings_hold_epochs_alone() -> None:
    config = replace(PAPER, warmup_steps=84, refresh_steps=250, cluster_steps=0).resolved(42)
    assert (config.warmup_epochs, config.refresh_every, config.cluster_every) == (2, 6, 0)
    assert config.resolved(7) == config


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clusters": (1, 5)}, "method.clusters"),
        ({"clusters": (9, 5)}, "method.clusters"),
        ({"clusters": (2, 257)}, "method.clusters"),
        ({"warmup_epochs": -1}, "method.warmup_epochs"),
        ({"temperature": 0.0}, "method.temperature"),
        ({"kappa": -1.0}, "method.kappa"),
        ({"momentum": 1.5}, "method.momentum"),
        ({"regions": 0}, "method.regions"),
    ],
)
def test_a_wrong_value_names_field_and_value(change: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        replace(PAPER, **change)
    assert str(next(iter(change.values()))) in str(caught.value)
