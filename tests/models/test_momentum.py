import math

import pytest
import torch
from torch import nn

from cyborgs.models.momentum import momentum_at, target_of, update_target


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


@pytest.mark.parametrize("m", [0.0, 0.3, 0.996, 1.0])
def test_update_follows_the_formula_over_steps(m: float) -> None:
    online = network().double()
    target = target_of(online)
    expected = [p.clone() for p in target.parameters()]
    for _ in range(5):
        with torch.no_grad():
            for p in online.parameters():
                p.add_(torch.randn_like(p))
            online[1].running_mean.add_(1)
        update_target(online, target, m)
        expected = [m * e + (1 - m) * p.detach() for e, p in zip(expected, online.parameters(), strict=True)]
        for p, e in zip(target.parameters(), expected, strict=True):
            torch.testing.assert_close(p.data, e, rtol=1e-12, atol=1e-12)
    assert target[1].running_mean.abs().max() == 0  # buffers are not averaged
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())


def test_update_refuses_what_cannot_be() -> None:
    online = network()
    with pytest.raises(ValueError, match="need 0 to 1"):
        update_target(online, target_of(online), 1.5)
    with pytest.raises(ValueError, match="has 5 parameters, the target 2"):
        update_target(online, nn.Linear(3, 4), 0.5)


def test_schedules() -> None:
    assert [momentum_at(p, 0.996, "constant") for p in (0.0, 0.4, 1.0)] == [0.996] * 3
    for p in (0.0, 0.25, 0.5, 1.0):
        expected = 1 - (1 - 0.99) * (math.cos(math.pi * p) + 1) / 2
        assert momentum_at(p, 0.99, "cosine") == pytest.approx(expected, abs=1e-15)
    assert momentum_at(0.0, 0.99, "cosine") == pytest.approx(0.99)
    assert momentum_at(1.0, 0.99, "cosine") == 1.0
    with pytest.raises(ValueError, match="constant or cosine"):
        momentum_at(0.5, 0.99, "linear")  # type: ignore[arg-type]
