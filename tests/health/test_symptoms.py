"""Judgement without a run: thresholds, patience, memory, words."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from cyborgs.health.advice import WORDS, over, sentence
from cyborgs.health.config import HealthConfig
from cyborgs.health.guard import Episode, _advance
from cyborgs.health.symptoms import Circumstances, Memory, above, below, read_masks, read_step
from cyborgs.structures import EpochPlan

WARM = EpochPlan(0, (), {"cluster": 1.0}, "warm-up")
BOTH = EpochPlan(5, (), {"contrast": 1.0, "cluster": 0.1})
KNOWN = Circumstances(peak_rate=0.1, bootstrapped=True)
HEALTHY_MASKS = {"masks/one_label_share": 0.1, "masks/entropy": 0.8, "masks/used_clusters": 1.0, "masks/stability": 0.3}


def sick(numbers: dict[str, float], plan: EpochPlan = BOTH, memory: Memory | None = None, **known: Any) -> set[str]:
    readings = read_step({"lr": 0.1, **numbers}, plan, HealthConfig(), replace(KNOWN, **known), memory or Memory())
    return {reading.name for reading in readings if reading.sick}


def test_every_sickness_has_a_setting_and_words() -> None:
    settings = {field.name for field in fields(HealthConfig) if getattr(HealthConfig(), field.name) in ("warn", "stop")}
    assert settings == set(WORDS)
    assert HealthConfig().not_finite == "stop"
    for name in WORDS:
        said = sentence(name, "embed/x", 0.01234, 7)
        assert "since step 7: embed/x is 0.0123" in said
        assert said.endswith(".")
        assert over(name, "embed/x", 1.0, 9).startswith("Over at step 9: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"few_regions": "shout"}, "health.few_regions: need warn, stop or ignore, got 'shout'"),
        ({"min_rank": -1.0}, "health.min_rank: need a number of at least 0"),
        ({"patience": 0}, "health.patience: need at least 1"),
        ({"gradient_factor": 1.0}, "health.gradient_factor: need a number above 1"),
        ({"update_ratio": (0.1, 0.1)}, "health.update_ratio: need 0 <= smallest < largest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HealthConfig(**change)


def test_limits_leave_room_between_sick_and_well() -> None:
    assert [below(x, 0.1) for x in (0.09, 0.1, 0.12, 0.126)] == [True, None, None, False]
    assert [above(x, 0.5) for x in (0.51, 0.5, 0.41, 0.4)] == [True, None, None, False]


def test_patience_and_hysteresis() -> None:
    course = Episode()
    readings = [True, True, False, True, None, True, True, True, None, False, False, True, False, False, False, False]
    said = [(step, state) for step, r in enumerate(readings) if (state := _advance(course, [r], step, 3))]
    assert said == [(6, "begins"), (14, "ends")]
    assert course == Episode(sick=0, well=4, since=3, active=False)


def test_any_figure_makes_sick_and_all_make_well() -> None:
    course = Episode()
    assert _advance(course, [False, True], 1, 1) == "begins"
    assert _advance(course, [False, None], 2, 1) == ""
    assert _advance(course, [False, False], 3, 1) == "ends"


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"embed/std_online": 0.09}, {"collapsed_embeddings"}),
        ({"embed/std_target": 0.09, "embed/std_online": 0.9}, {"collapsed_embeddings"}),
        ({"embed/rank_target": 1.4, "embed/rank_online": 50.0}, {"collapsed_embeddings"}),
        ({"embed/std_online": 0.3, "embed/rank_online": 1.6}, set()),
        ({"batchnorm/dead": 0.21}, {"dead_batchnorm"}),
        ({"batchnorm/dead": 0.1}, set()),
        ({"update/ratio": 0.11}, {"learning_rate"}),
        ({"update/ratio": 1e-7}, {"learning_rate"}),
        ({"update/ratio": 1e-7, "lr": 0.01}, set()),  # warm-up and end of the schedule
        ({"contrast/regions": 1.2}, {"few_regions"}),
        ({"contrast/matched_share": 0.1}, {"few_matches"}),
        ({"gradient/norm": 0.0}, {"vanishing_gradients"}),
        ({"gradient/norm": 1e6}, set()),  # nothing to compare with yet
    ],
)
def test_thresholds_of_single_figures(numbers: dict[str, float], expected: set[str]) -> None:
    assert sick(numbers) == expected


def test_one_region_that_was_asked_for_is_no_sickness() -> None:
    assert sick({"contrast/regions": 1.0}, one_region=True) == set()


def test_a_rank_far_below_what_it_was() -> None:
    memory = Memory()
    assert sick({"embed/rank_online": 90.0}, memory=memory) == set()
    assert sick({"embed/rank_online": 9.1}, memory=memory) == set()
    assert sick({"embed/rank_online": 8.9}, memory=memory) == {"collapsed_embeddings"}


def test_gradients_are_compared_with_those_of_the_same_losses() -> None:
    memory = Memory()
    for _ in range(8):
        assert sick({"gradient/norm": 1.0}, WARM, memory) == set()
        assert sick({"gradient/norm": 500.0}, BOTH, memory) == set()
    for _ in range(30):  # what is out of line does not become the rule
        assert sick({"gradient/norm": 150.0}, WARM, memory) == {"exploding_gradients"}
        assert sick({"gradient/norm": 1.0}, BOTH, memory) == {"vanishing_gradients"}
    for power in range(100):  # a slow fall is followed
        assert sick({"gradient/norm": 0.8**power}, WARM, memory) <= {"vanishing_gradients"} or power > 90


def clusters(**changes: float) -> dict[str, float]:
    figures = {"intra_over_log_k": 0.8, "rank": 50.0, "k": 8.0, "own_cosine": 0.7, "largest_share": 0.3} | changes
    return {f"cluster/{name}": value for name, value in figures.items()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"rank": 8.0}, set()),  # low rank alone: pixels are not at their prototypes
        ({"rank": 8.3, "own_cosine": 0.99}, {"collapsed_features"}),
        ({"rank": 8.5, "own_cosine": 0.99}, set()),
        ({"rank": 2.0, "own_cosine": 0.99, "largest_share": 0.96}, {"giant_cluster"}),
        ({"largest_share": 0.9}, set()),
    ],
)
def test_clusters(changes: dict[str, float], expected: set[str]) -> None:
    assert sick(clusters(**changes)) == expected


def test_loss_2_that_does_not_fall() -> None:
    def course(values: list[float], plan: EpochPlan) -> list[bool]:
        memory = Memory()
        return ["stalled_clustering" in sick(clusters(intra_over_log_k=v), plan, memory) for v in values]

    assert course([0.9] * 12, WARM) == [False] * 7 + [True] * 5
    assert not any(course([0.9 * 0.98**i for i in range(12)], WARM))
    assert not any(course([0.15] * 12, WARM))  # nothing is left to fall
    assert not any(course([0.6] * 30, BOTH))  # later it may rest where it fell to
    assert course([1.99] * 5, BOTH) == [False] * 3 + [True] * 2  # all pixels alike


def test_another_phase_is_another_beginning() -> None:
    memory = Memory()
    for _ in range(7):
        assert sick(clusters(), WARM, memory) == set()
    assert sick(clusters(), BOTH, memory) == set()
    assert sick(clusters(), WARM, memory) == set()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"masks/one_label_share": 0.6}, {"collapsed_masks"}),
        ({"masks/entropy": 0.05}, {"collapsed_masks"}),
        ({"masks/used_clusters": 0.4}, {"collapsed_masks"}),
        ({"masks/stability": 0.01}, {"unstable_masks"}),
    ],
)
def test_masks(changes: dict[str, float], expected: set[str]) -> None:
    figures = HEALTHY_MASKS | changes
    assert {r.name for r in read_masks(figures, HealthConfig(), KNOWN) if r.sick} == expected
    assert list(read_masks(figures, HealthConfig(), replace(KNOWN, bootstrapped=False))) == []  # as they were asked for
