import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

from cyborgs.engine.optim import LARS, build_optimizer, clip_gradients, parameter_groups, set_rates
from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.errors import UserError


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
    return parameter_groups(holder, OptimizerConfig(weight_decay=decay))


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
    weights, others = parameter_groups(module, OptimizerConfig(weight_decay=0.3))
    assert [id(p) for p in weights["params"]] == [id(module[0].weight)]
    assert (weights["weight_decay"], weights["exclude_from_adaptation"]) == (0.3, False)
    expected = [module[0].bias, module[1].weight, module[1].bias, module[2].bias]
    assert [id(p) for p in others["params"]] == [id(p) for p in expected]
    assert (others["weight_decay"], others["exclude_from_adaptation"]) == (0.0, True)


def test_build_optimizer() -> None:
    module = nn.Linear(3, 2)
    config = OptimizerConfig(momentum=0.8, weight_decay=0.2, trust=0.01)
    lars = build_optimizer(config, parameter_groups(module, config), 0.5)
    assert isinstance(lars, LARS)
    first, second = lars.param_groups
    assert (first["lr"], first["momentum"], first["weight_decay"]) == (0.5, 0.8, 0.2)
    assert (first["trust_coefficient"], second["weight_decay"]) == (0.01, 0.0)
    sgd = build_optimizer(OptimizerConfig(kind="sgd"), parameter_groups(module, OptimizerConfig(weight_decay=0.2)), 0.5)
    assert isinstance(sgd, torch.optim.SGD)
    assert [g["weight_decay"] for g in sgd.param_groups] == [0.2, 0.0]
    module(torch.ones(1, 3)).sum().backward()
    sgd.step()


def numpy_adamw(
    weights: Sequence[np.ndarray],
    gradients: Sequence[Sequence[np.ndarray | None]],
    decays: Sequence[float],
    rates: Sequence[float],
) -> list[np.ndarray]:
    """Loshchilov and Hutter (2019), Algorithm 2, a parameter at a time; betas 0.8 and 0.95, eps 1e-6."""
    made = []
    for i, start in enumerate(weights):
        w, m, v, t = start.astype(np.float64), np.zeros(start.shape), np.zeros(start.shape), 0
        for step in gradients:
            g = step[i]
            if g is None:
                continue
            t += 1
            w = w - rates[i] * decays[i] * w
            m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
            w = w - rates[i] * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6)
        made.append(w)
    return made


def numpy_sgd(
    weights: Sequence[np.ndarray], gradients: Sequence[Sequence[np.ndarray | None]], decays: Sequence[float]
) -> list[np.ndarray]:
    made = []
    for i, start in enumerate(weights):
        w, buffer = start.astype(np.float64), None
        for step in gradients:
            g = step[i]
            if g is None:
                continue
            g = g + decays[i] * w
            buffer = g if buffer is None else 0.9 * buffer + g
            w = w - 0.3 * buffer
        made.append(w)
    return made


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_sgd_and_adamw_follow_their_formulas(kind: str) -> None:
    weights, gradients = problem()
    parameters = [nn.Parameter(torch.tensor(w)) for w in weights]
    config = OptimizerConfig(kind=kind, momentum=0.9, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05)  # type: ignore[arg-type]
    holder = nn.Module()
    for i, p in enumerate(parameters):
        holder.register_parameter(f"p{i}", p)
    run(build_optimizer(config, parameter_groups(holder, config), 0.3), parameters, gradients)
    decays = [0.05] * 4 + [0.0] * 2
    adamw = numpy_adamw(weights, gradients, decays, [0.3] * 6)
    expected = numpy_sgd(weights, gradients, decays) if kind == "sgd" else adamw
    for p, e in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e, rtol=1e-9, atol=1e-12)


class Net(nn.Module):
    """A backbone of a stem, its norm and two stages, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.trunk = nn.Module()
        self.backbone.trunk.stem = nn.Conv2d(3, 4, 3)
        self.backbone.trunk.norm = nn.BatchNorm2d(4)
        self.backbone.trunk.blocks = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4)))
        self.backbone.trunk.position = nn.Parameter(torch.zeros(2, 4))
        self.head = nn.Linear(4, 2)


def rates_of(module: nn.Module, config: OptimizerConfig) -> dict[str, tuple[float, float]]:
    """Of each parameter: the rate of its group and its weight decay."""
    names = {id(p): n for n, p in module.named_parameters()}
    found = {}
    for group in parameter_groups(module, config):
        for p in group["params"]:
            found[names[id(p)]] = (group.get("lr_scale", 1.0), group["weight_decay"])
    return found


def test_layer_wise_rates_by_hand() -> None:
    """Parts in order: position (of the trunk itself, first among its parameters), stem and norm, blocks.0, blocks.1."""
    found = rates_of(Net(), OptimizerConfig(layer_decay=0.5, weight_decay=0.1))
    assert found == {
        "backbone.trunk.position": (0.0625, 0.1),
        "backbone.trunk.stem.weight": (0.125, 0.1),
        "backbone.trunk.stem.bias": (0.125, 0.0),
        "backbone.trunk.norm.weight": (0.125, 0.0),
        "backbone.trunk.norm.bias": (0.125, 0.0),
        "backbone.trunk.blocks.0.0.weight": (0.25, 0.1),
        "backbone.trunk.blocks.0.0.bias": (0.25, 0.0),
        "backbone.trunk.blocks.1.0.weight": (0.5, 0.1),
        "backbone.trunk.blocks.1.0.bias": (0.5, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (1.0, 0.0),
    }


def test_exclusions_by_pattern_and_decay_of_all() -> None:
    excluded = rates_of(Net(), OptimizerConfig(weight_decay=0.1, exclude=("*.position", "head.*")))
    assert {name for name, (_, decay) in excluded.items() if decay} == {
        "backbone.trunk.stem.weight",
        "backbone.trunk.blocks.0.0.weight",
        "backbone.trunk.blocks.1.0.weight",
    }
    everything = rates_of(Net(), OptimizerConfig(weight_decay=0.1, decay_vectors=True))
    assert all(decay == 0.1 for _, decay in everything.values())


def test_a_pattern_that_names_nothing_is_a_mistake() -> None:
    with pytest.raises(UserError, match=r"optimizer.exclude: no parameter is named '\*.positions'; there are backbone"):
        parameter_groups(Net(), OptimizerConfig(exclude=("*.positions",)))


def test_rates_and_schedules_reach_the_groups() -> None:
    config = OptimizerConfig(weight_decay=0.1, layer_decay=0.5, kind="adamw")
    optimizer = build_optimizer(config, parameter_groups(Net(), config), 1.0)
    set_rates(optimizer, 0.4, {"weight_decay": 0.3, "momentum": 0.7})
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert {group["betas"] for group in optimizer.param_groups} == {(0.7, 0.999)}
    decays = {(group["exclude_from_adaptation"], group["weight_decay"]) for group in optimizer.param_groups}
    assert decays == {(False, 0.3), (True, 0.0)}
    sgd = build_optimizer(OptimizerConfig(kind="sgd"), parameter_groups(Net(), OptimizerConfig()), 1.0)
    set_rates(sgd, 0.4, {"momentum": 0.7})
    assert {group["momentum"] for group in sgd.param_groups} == {0.7}


@pytest.mark.parametrize(("largest", "factor"), [(0.0, 1.0), (26.0, 1.0), (13.0, 1.0), (6.5, 0.5)])
def test_clipping_by_the_norm_of_all(largest: float, factor: float) -> None:
    """3, 4 and 12: a norm of 13."""
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])
    assert float(clip_gradients(parameters, largest)) == 13
    torch.testing.assert_close(parameters[0].grad, factor * torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(parameters[1].grad, factor * torch.tensor([[12.0]]))
    assert parameters[2].grad is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"momentum": 1.0}, "optimizer.momentum: need 0 to below 1"),
        ({"momentum_end": -0.1}, "optimizer.momentum_end"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas"),
        ({"eps": 0.0}, "optimizer.eps"),
        ({"layer_decay": 0.0}, "optimizer.layer_decay"),
        ({"clip": -1.0}, "optimizer.clip"),
        ({"weight_decay_end": -1.0}, "optimizer.weight_decay_end"),
    ],
)
def test_settings_out_of_range(change: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        OptimizerConfig(**change)  # type: ignore[arg-type]
