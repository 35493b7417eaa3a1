import subprocess
import sys
from itertools import pairwise

import pytest

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.engine.schedule import learning_rate, scheduled, warmup_steps


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.001), (10, 0.1), (767, 0.1), (768, 0.01), (784, 0.001), (799, 0.001)]
)
@pytest.mark.parametrize("steps", [1, 42, 1848])
def test_the_rates_of_the_paper(epoch: int, rate: float, steps: int) -> None:
    config = OptimizerConfig()
    assert learning_rate(config, epoch * steps, steps, 800, 64) == pytest.approx(rate, rel=1e-12)
    assert learning_rate(config, epoch * steps, steps, 800, 128) == pytest.approx(2 * rate, rel=1e-12)


def test_the_rate_falls_at_the_first_step_of_a_milestone() -> None:
    config = OptimizerConfig()
    assert learning_rate(config, 768 * 42 - 1, 42, 800, 64) == pytest.approx(0.1)
    assert learning_rate(config, 768 * 42, 42, 800, 64) == pytest.approx(0.01)
    # 0.25 of 10 epochs is 2.5: rounded to epoch 2, as Python rounds.
    early = OptimizerConfig(warmup_epochs=0, milestones=(0.25,))
    rates = [learning_rate(early, step, 3, 10, 64) for step in range(9)]
    assert rates == pytest.approx([0.1] * 6 + [0.01] * 3)


def test_warmup_is_linear_and_reaches_the_peak() -> None:
    config = OptimizerConfig(lr=0.4, warmup_epochs=2, warmup_start=0.25)
    rates = [learning_rate(config, step, 5, 100, 64) for step in range(12)]
    assert rates[:11] == pytest.approx([0.1 + 0.03 * step for step in range(11)])
    assert rates[10:] == pytest.approx([0.4, 0.4])


def test_a_fraction_replaces_the_epochs() -> None:
    config = OptimizerConfig(warmup_fraction=0.05)
    assert warmup_steps(config, 42, 20) == pytest.approx(42)
    assert learning_rate(config, 21, 42, 20, 64) == pytest.approx(0.1 * (0.01 + 0.99 * 0.5))
    assert learning_rate(config, 42, 42, 20, 64) == pytest.approx(0.1)


def test_no_warmup() -> None:
    assert learning_rate(OptimizerConfig(warmup_epochs=0), 0, 10, 100, 64) == pytest.approx(0.1)


def test_cosine_falls_from_the_peak_to_nothing() -> None:
    config = OptimizerConfig(schedule="cosine", warmup_epochs=10)
    rates = [learning_rate(config, 10 * epoch, 10, 110, 64) for epoch in range(10, 111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0.0, abs=1e-15)
    assert all(a > b for a, b in pairwise(rates))
    assert learning_rate(config, 5000, 10, 110, 64) == pytest.approx(0.0, abs=1e-15)


def test_what_cannot_be_is_refused() -> None:
    for numbers in ((-1, 10, 100, 64), (0, 0, 100, 64), (0, 10, 0, 64), (0, 10, 100, 0)):
        with pytest.raises(ValueError, match="need a step of at least 0"):
            learning_rate(OptimizerConfig(), *numbers)


def test_no_torch_is_loaded() -> None:
    code = "import sys, cyborgs.engine.schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_else_changes_with_the_step() -> None:
    """Half a cosine over 5 steps: the beginning, (1 + cos 45 degrees) / 2, the middle, the end."""
    config = OptimizerConfig(momentum=0.9, momentum_end=0.5, weight_decay=0.0, weight_decay_end=1.0)
    momentum = [scheduled(config, step, 5)["momentum"] for step in range(5)]
    assert momentum == pytest.approx([0.9, 0.5 + 0.4 * 0.8535534, 0.7, 0.5 + 0.4 * 0.1464466, 0.5], rel=1e-6)
    decay = [scheduled(config, step, 5)["weight_decay"] for step in range(5)]
    assert decay == pytest.approx([0.0, 0.1464466, 0.5, 0.8535534, 1.0], rel=1e-6)
    assert scheduled(OptimizerConfig(), 3, 5) == {}
    assert scheduled(OptimizerConfig(kind="adamw", momentum_end=0.5), 0, 5) == {"momentum": 0.9}
