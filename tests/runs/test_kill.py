"""SIGKILL at any moment: the run that goes on ends byte for byte as the one that was never killed."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import make_photos, tiny_recipe
from tests.runs.killing import Kill, Runs, start_server
from tests.runs.test_pretrain import results

BASE = tiny_recipe(snapshot_refreshes=True, epochs=3, checkpoint_every=3)
RECIPE = replace(BASE, masks=replace(BASE.masks, keep_generations=1))
"""Warm-up, two generations of masks, the older one pruned; a checkpoint at each and at step 3: 6 steps."""


@dataclass(frozen=True)
class Whole:
    """A run that nobody killed."""

    photos: Path
    out: Path
    seconds: float
    operations: list[str]


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return start_server()


_WHOLE: dict[int, Whole] = {}


@pytest.fixture
def whole(
    world: int, context: ForkServerContext, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Whole:
    if world not in _WHOLE:
        folder = tmp_path_factory.mktemp(f"whole{world}")
        photos = make_photos(folder / "photos")
        start = time.monotonic()
        assert Runs(context, photos, world=world).once(RECIPE, folder / "run")
        seconds = time.monotonic() - start
        operations = (folder / "run.operations").read_text().splitlines()
        _WHOLE[world] = Whole(photos, folder / "run", seconds, operations)
    return _WHOLE[world]


def check(outs: list[Path], whole: Whole) -> None:
    expected = results(whole.out)
    for out in outs:
        found = results(out)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == value, f"{out}: {name}"


def any_moments(count: int, seed: int, world: int) -> list[Kill]:
    """Uniform over the whole run; of several processes both at once, or one and then the other."""
    rng = random.Random(seed)
    return [
        Kill(share=rng.random(), first=rng.randrange(world), apart=rng.choice((0.0, rng.random())))
        for _ in range(count)
    ]


def while_writing(whole: Whole, of: str, count: int, seed: int) -> list[Kill]:
    """Before operations on files whose path holds ``of``."""
    there = sum(of in operation for operation in whole.operations)
    assert there, (of, whole.operations)
    rng = random.Random(seed)
    return [Kill(at=rng.randint(1, there), of=of) for _ in range(count)]


@pytest.mark.parametrize(
    ("workers", "world", "count", "seed"),
    [(0, 1, 2, 0), (0, 1, 2, 1), (2, 1, 1, 2), (2, 1, 1, 3), (2, 1, 1, 4), (0, 2, 1, 5), (0, 2, 1, 6), (2, 2, 1, 7)],
)
def test_killed_at_any_moment(
    workers: int, world: int, count: int, seed: int, whole: Whole, context: ForkServerContext, tmp_path: Path
) -> None:
    runs = Runs(context, whole.photos, world=world, seconds=whole.seconds)
    recipe = replace(RECIPE, workers=workers)
    check(runs.survive(recipe, tmp_path, any_moments(count, seed, world)), whole)


@pytest.mark.parametrize(
    ("of", "world", "count"),
    [
        (".lock.json", 1, 1),
        ("images.csv", 1, 1),
        ("recipe.yaml", 1, 1),
        ("checkpoints/", 1, 2),
        ("masks/", 1, 2),
        ("masks/", 2, 1),
        ("backbone.safetensors", 1, 1),
    ],
)
def test_killed_while_it_writes(
    of: str, world: int, count: int, whole: Whole, context: ForkServerContext, tmp_path: Path
) -> None:
    runs = Runs(context, whole.photos, world=world)
    outs = runs.survive(RECIPE, tmp_path, while_writing(whole, of, count, seed=count + world))
    check(outs, whole)
    for out in outs:
        left = [path for path in out.rglob("*") if path.suffix in (".tmp", ".partial", ".old", ".removed")]
        assert not left, "what was written aside is gone when the run is"


@pytest.mark.parametrize("world", [1])
def test_killed_while_it_writes_the_report(
    world: int, whole: Whole, context: ForkServerContext, tmp_path: Path
) -> None:
    runs = Runs(context, whole.photos, page=True)
    out = tmp_path / "run"
    assert not runs.once(RECIPE, out, Kill(at=2, of="report.html"))
    assert not (out / "report.html").exists()  # half a page never has its name
    assert runs.once(RECIPE, out)
    page = (out / "report.html").read_text()
    assert not runs.once(RECIPE, out, Kill(at=2, of="report.html"))
    assert (out / "report.html").read_text() == page
    check([out], whole)


@pytest.mark.parametrize("world", [1])
def test_events_after_a_kill_are_those_of_the_metrics(
    world: int, whole: Whole, context: ForkServerContext, tmp_path: Path
) -> None:
    """TensorBoard shows each step once, though the killed process wrote some that were done again."""
    runs = Runs(context, whole.photos)
    out = tmp_path / "run"
    assert not runs.once(RECIPE, out, Kill(at=1, of="epoch-0002"))  # after steps 3 and 4; the checkpoint is of step 3
    assert runs.once(RECIPE, out)
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    shown = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]
    assert shown == [(line["step"], line["loss"]) for line in lines if "loss" in line]


SLOW = [(workers, world, seed) for seed in range(10) for workers, world in ((0, 1), (2, 1))]
SLOW += [(workers, world, seed) for seed in range(5) for workers, world in ((0, 2), (2, 2))]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "world", "seed"), SLOW)
def test_killed_many_times(
    workers: int, world: int, seed: int, whole: Whole, context: ForkServerContext, tmp_path: Path
) -> None:
    """200 kills over all of these: 140 at any moment, 60 before some operation on a file."""
    runs = Runs(context, whole.photos, world=world, seconds=whole.seconds)
    recipe = replace(RECIPE, workers=workers)
    number = seed + 100 * workers + 1000 * world
    kills = any_moments(4 if world == 2 else 5, number, world)
    kills += while_writing(whole, "", 2, number)
    random.Random(number).shuffle(kills)
    check(runs.survive(recipe, tmp_path, kills), whole)
