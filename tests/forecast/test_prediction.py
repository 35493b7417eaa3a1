"""Costs times counts, checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cyborgs.forecast.prediction import forecast, tell
from cyborgs.forecast.rehearsal import Measured
from cyborgs.forecast.stopwatch import Enough, StepTimer, Times
from cyborgs.runs.workload import Kind, workload
from tests.conftest import tiny_byol, tiny_recipe

WARMUP, CONTRAST, BOTH = (
    Kind("warm-up", ("cluster",)),
    Kind("training", ("contrast",), ("labels",)),
    Kind("training", ("contrast", "cluster"), ("labels",)),
)
MEASURED = Measured(
    steps={
        WARMUP: Times((5.0, 6.0), 1.0, 0.5),
        CONTRAST: Times((3.0,), 2.0, 0.0),
        BOTH: Times((4.0, 7.0, 10.0), 3.0, 0.25),
    },
    generation_seconds=100.0,
    generation_bytes=1000,
    save_seconds=2.0,
    checkpoint_bytes=4_000_000,
    backbone_bytes=1_000_000,
    line_bytes=10,
    start_seconds=1.5,
    peak=2_000_000_000,
    workers=100_000_000,
    device=0,
)


def test_an_epoch() -> None:
    times = Times((5.0, 6.0, 8.0), 1.5, 9.0)
    assert [times.epoch(n) for n in (1, 2, 3, 4, 10)] == [5.0, 6.0, 8.0, 9.5, 18.5]


def test_time_by_phase() -> None:
    """6 epochs of 5 steps: one of warm-up, 3 of contrast, 2 with both; masks at epochs 1, 2 and 4."""
    recipe = tiny_recipe(log_every=5, snapshots=(0, 6))
    work = workload(recipe, 40)
    found = forecast(recipe, work, 40, MEASURED)
    assert dict(found.seconds) == {
        str(WARMUP): 9.0 + 0.5,  # 6 + 3 steps of 1 s, and one logged step
        str(CONTRAST): 3 * (3 + 4 * 2.0),
        str(BOTH): 2 * (10 + 2 * 3.0) + 2 * 0.25,
        "making masks": 300.0,
        "saving": 2.0 * (4 + 3 / 4),  # three refreshes and the end; two snapshots and the result
        "starting": 1.5,
    }
    assert found.total == pytest.approx(sum(found.seconds.values()))
    assert found.space.checkpoints == 3 * 4_000_000
    assert found.space.masks == 4 * 1000
    assert found.space.logs == 10 * work.lines + 40 * 120


def test_the_text() -> None:
    recipe = tiny_recipe(workers=2)
    work = workload(recipe, 40)
    text = tell(recipe, work, MEASURED, forecast(recipe, work, 40, MEASURED), processes=1, device="a CPU, 2 threads")
    for part in (
        "on a CPU, 2 threads, 1 process, 2 loader processes each",
        "warm-up (cluster)",
        "1 epochs x 5 steps, 1 s a step",
        "3 times, 1m 40s each",
        "2.1 GB  at most, of one process with its loader's",
        "100.0 MB  2 together",
        "the mean of its range 2 to 6, for times; 6 for memory",
    ):
        assert part in text
    assert "GPU" not in text
    gpu = replace(MEASURED, device=10**10)
    several = tell(recipe, work, gpu, forecast(recipe, work, 40, gpu), processes=4, device="X")
    assert "4 processes" in several
    assert "GPU memory" in several
    recipe = tiny_byol()
    work = workload(recipe, 40)
    byol = replace(MEASURED, steps={Kind("training", ("byol",)): Times((1.0,), 1.0, 0.0)})
    text = tell(recipe, work, byol, forecast(recipe, work, 40, byol), processes=1, device="X")
    assert "masks" not in text
    assert "loader processes  " not in text


class Steps:
    """A trainer as the watch sees it."""

    log_every = 10**9


def watched(monkeypatch: pytest.MonkeyPatch, durations: list[float], most: int, burst: int) -> tuple[Times, int]:
    """Times of an epoch whose steps take so long each, and how many of them were made."""
    now = [0.0]
    monkeypatch.setattr("cyborgs.forecast.stopwatch.time.perf_counter", lambda: now[0])
    watch, trainer, made = StepTimer(most, burst, cuda=False), Steps(), 0
    watch.begin()
    with pytest.raises(Enough):  # noqa: PT012 - which step raises is what is asked
        for duration in durations:
            now[0] += duration
            made += 1
            watch.on_step(trainer)  # type: ignore[arg-type]
    return watch.times(), made


def test_a_short_epoch_is_timed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    times, made = watched(monkeypatch, [2.0, 1.0, 1.0, 1.5], most=4, burst=0)
    assert made == 4
    assert times == Times((2.0, 3.0, 4.0), 1.0, 0.5)
    assert times.epoch(4) + times.logged == 5.5
    alone, made = watched(monkeypatch, [2.0], most=1, burst=4)
    assert (alone, made) == (Times((2.0,), 2.0, 0.0), 1)


def test_a_quick_step_is_timed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    times, made = watched(monkeypatch, [0.01] * 100, most=24, burst=4)
    assert made == 24
    assert times.steady == pytest.approx(0.01)


def test_the_loaders_first_burst_is_not_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    times, made = watched(monkeypatch, [1.5] + [1.0] * 4 + [0.5] * 20, most=24, burst=4)
    assert made == 9  # the burst, three more, and a logged one
    assert times.ends[0] == 1.5
    assert times.steady == pytest.approx(0.5)
    assert times.epoch(1000) == pytest.approx(7 + 992 * 0.5)


def test_a_slow_step_is_timed_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, [5.0] * 20, most=24, burst=4)[1] == 5
    assert watched(monkeypatch, [60.0] * 20, most=24, burst=4)[1] == 3
