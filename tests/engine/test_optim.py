import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from cyborgs.engine.optim import LARS, build_optimizer, parameter_groups
from cyborgs.engine.optimizer_config import OptimizerConfig


def numpy_lars(
    weights: Sequence[np.ndarray],
    gradients: Sequence[Sequence[np.ndarray | None]],
    excluded: Sequence[bool],
    lr: float,
    momentum: float,
    decay: float,
    trust: float,
) -> list[np.ndarray]:
    """The LARS of docs/method.md, a parameter at a time."""
    weights = [w.astype(np.float64) for w in weights]
    buffers: list[np.ndarray | None] = [None] * len(weights)
    for step in gradients:
        for i, gradient in enumerate(step):
            if gradient is None:
                continue
            g = gradient + (0 if excluded[i] else decay) * weights[i]
            if not excluded[i]:
                w_norm, g_norm = np.sqrt((weights[i] ** 2).sum()), np.sqrt((g**2).sum())
                if w_norm > 0 and g_norm > 0:
                    g = g * trust * w_norm / (g_norm + 1e-8)
            buffers[i] = g if buffers[i] is None else momentum * buffers[i] + g
            weights[i] = weights[i] - lr * buffers[i]
    return weights


def problem() -> tuple[list[np.ndarray], list[list[np.ndarray | None]]]:
    """Ten steps for six parameters: weights of 0, gradients of 0, and some that are absent at times."""
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (2, 3, 3, 3), (5, 2), (3, 2), (4,), (3,)]
    weights = [rng.normal(size=s) for s in shapes]
    weights[2][:] = 0
    gradients: list[list[np.ndarray | None]] = [[rng.normal(size=s) * 3 for s in shapes] for _ in range(10)]
    for step, row in enumerate(gradients):
        if step < 4:
            row[3] = np.zeros(shapes[3])
            row[5] = None
        if step % 3 == 1:
            row[1] = None
    return weights, gradients


def run(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: list[list[np.ndarray | None]]) -> None:
    for row in steps:
        for p, g in zip(parameters, row, strict=True):
            p.grad = None if g is None else torch.as_tensor(g, dtype=p.dtype)
        optimizer.step()


def groups_of(parameters: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    holder = nn.Module()
    for i, p in enumerate(parameters):
        holder.register_parameter(f"p{i}", p)
    return parameter_groups(holder, decay)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_lars_follows_the_formula_over_ten_steps(decay: float) -> None:
    weights, gradients = problem()
    parameters = [nn.Parameter(torch.tensor(w)) for w in weights]
    run(LARS(groups_of(parameters, decay), 0.7, 0.9, decay, 0.02), parameters, gradients)
    expected = numpy_lars(weights, gradients, [False] * 4 + [True] * 2, 0.7, 0.9, decay, 0.02)
    for p, e in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e, rtol=1e-6, atol=1e-12)
    singles = [nn.Parameter(torch.tensor(w, dtype=torch.float32)) for w in weights]
    run(LARS(groups_of(singles, decay), 0.7, 0.9, decay, 0.02), singles, gradients)
    for p, e in zip(singles, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e, rtol=2e-5, atol=2e-6)


def test_an_excluded_group_is_sgd() -> None:
    weights, gradients = problem()
    ours = [nn.Parameter(torch.tensor(w)) for w in weights]
    theirs = [nn.Parameter(torch.tensor(w)) for w in weights]
    run(LARS([{"params": ours, "exclude_from_adaptation": True, "weight_decay": 0.1}], 0.01), ours, gradients)
    run(torch.optim.SGD(theirs, 0.01, momentum=0.9, weight_decay=0.1), theirs, gradients)
    for p, e in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, e, rtol=1e-12, atol=1e-12)


def test_a_parameter_without_gradient_is_left_whole() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([parameter], 0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(2, 2))
    assert not optimizer.state


def test_dtypes_may_be_mixed_in_a_group() -> None:
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2).double())]
    for p in parameters:
        p.grad = torch.full_like(p, 3.0)
    LARS(parameters, 1.0, trust_coefficient=0.5).step()
    assert parameters[0].dtype == torch.float32
    for p in parameters:
        torch.testing.assert_close(p.data, torch.full_like(p, 0.5))


def test_the_gradient_is_not_changed_and_a_closure_is_called() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.full((2, 2), 2.0)
    LARS([parameter], 0.1, weight_decay=0.5).step()
    assert torch.equal(parameter.grad, torch.full((2, 2), 2.0))
    optimizer = LARS([parameter], 0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    before = parameter.square().sum().item()
    assert optimizer.step(closure).item() == pytest.approx(before)
    assert parameter.square().sum().item() < before


def test_a_state_dict_goes_on_bit_for_bit() -> None:
    weights, gradients = problem()
    parameters = [nn.Parameter(torch.tensor(w)) for w in weights]
    optimizer = LARS(groups_of(parameters, 0.01), 0.7)
    run(optimizer, parameters, gradients[:5])
    state = copy.deepcopy(optimizer.state_dict())
    assert {tuple(s) for s in state["state"].values()} == {("momentum_buffer",)}
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    run(optimizer, parameters, gradients[5:])
    other = LARS(groups_of(copies, 0.5), 0.1)
    other.load_state_dict(state)
    run(other, copies, gradients[5:])
    assert all(torch.equal(p, c) for p, c in zip(parameters, copies, strict=True))


def test_wrong_numbers_are_refused() -> None:
    parameter = nn.Parameter(torch.ones(1))
    wrong = ({"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"trust_coefficient": 0.0})
    for numbers in wrong:
        with pytest.raises(ValueError, match="LARS: need lr"):
            LARS([parameter], **{"lr": 0.1, **numbers})


def test_parameter_groups() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    module[2].weight.requires_grad_(False)
    weights, others = parameter_groups(module, 0.3)
    assert [id(p) for p in weights["params"]] == [id(module[0].weight)]
    assert (weights["weight_decay"], weights["exclude_from_adaptation"]) == (0.3, False)
    expected = [module[0].bias, module[1].weight, module[1].bias, module[2].bias]
    assert [id(p) for p in others["params"]] == [id(p) for p in expected]
    assert (others["weight_decay"], others["exclude_from_adaptation"]) == (0.0, True)


def test_build_optimizer() -> None:
    module = nn.Linear(3, 2)
    config = OptimizerConfig(momentum=0.8, weight_decay=0.2, trust=0.01)
    lars = build_optimizer(config, parameter_groups(module, config.weight_decay), 0.5)
    assert isinstance(lars, LARS)
    first, second = lars.param_groups
    assert (first["lr"], first["momentum"], first["weight_decay"]) == (0.5, 0.8, 0.2)
    assert (first["trust_coefficient"], second["weight_decay"]) == (0.01, 0.0)
    sgd = build_optimizer(OptimizerConfig(kind="sgd"), parameter_groups(module, 0.2), 0.5)
    assert isinstance(sgd, torch.optim.SGD)
    assert [g["weight_decay"] for g in sgd.param_groups] == [0.2, 0.0]
    module(torch.ones(1, 3)).sum().backward()
    sgd.step()
