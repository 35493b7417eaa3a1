from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cyborgs.losses import mask_contrastive_loss, mask_contrastive_terms

SOURCE = Path(__file__).parents[2] / "src"


def slow_loss(
    preds: list[np.ndarray],
    targets: list[np.ndarray],
    ids: list[np.ndarray],
    valids: list[np.ndarray],
    temperature: float = 0.1,
    normalise: str = "slots",
) -> dict[str, float]:
    """docs/method.md's loss 1 in plain loops."""
    b, r, _ = preds[0].shape

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / math.sqrt(x @ x) / math.sqrt(y @ y))

    total, weights, anchors = 0.0, 0.0, 0
    for v in (0, 1):
        for i in range(b):
            for m in range(r):
                if not valids[v][i, m]:
                    continue
                label = ids[v][i, m]
                area = sum(1 for n in range(r) if valids[v][i, n] and ids[v][i, n] == label)
                positives, denominator = [], []
                for u in (0, 1):
                    for j in range(b):
                        for n in range(r):
                            if not valids[u][j, n]:
                                continue
                            mine = i == j and ids[u][j, n] == label
                            if mine and u == v:
                                continue
                            logit = cosine(preds[v][i, m], targets[u][j, n]) / temperature
                            denominator.append(logit)
                            if mine:
                                positives.append(logit)
                if positives:
                    peak = max(denominator)
                    z = peak + math.log(sum(math.exp(x - peak) for x in denominator))
                    total += sum(z - p for p in positives) / len(positives) / area
                    weights += 1 / area
                    anchors += 1
    divisor = b * r if normalise == "slots" else max(weights / 2, 1e-300)
    return {
        "loss": total / divisor,
        "matched": anchors / (2 * b * r),
        "matched_mean": total / weights if weights else 0.0,
    }


class Case:
    def __init__(self, seed: int, b: int, r: int, *, repeats: bool, all_valid: bool, d: int = 6) -> None:
        rng = np.random.default_rng(seed)
        self.preds = [rng.normal(size=(b, r, d)) * 3 for _ in range(2)]
        self.targets = [rng.normal(size=(b, r, d)) * 3 for _ in range(2)]
        self.ids = [
            rng.integers(0, max(1, r), size=(b, r))
            if repeats
            else np.stack([rng.permutation(r + 2)[:r] for _ in range(b)])
            for _ in range(2)
        ]
        self.valids = [np.ones((b, r), bool) if all_valid else rng.random((b, r)) < 0.6 for _ in range(2)]
        for p, t, i, v in zip(self.preds, self.targets, self.ids, self.valids, strict=True):
            p[~v], t[~v], i[~v] = 0, 0, -1  # as the heads and the sampler leave them

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        preds = [torch.tensor(p, dtype=dtype, requires_grad=True) for p in self.preds]
        return preds, [torch.tensor(t, dtype=dtype) for t in self.targets], [torch.tensor(i) for i in self.ids]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_equals_plain_loops(seed: int, b: int, r: int, repeats: bool, all_valid: bool, matched: bool) -> None:
    case = Case(seed, b, r, repeats=repeats, all_valid=all_valid)
    normalise = "matched" if matched else "slots"
    expected = slow_loss(case.preds, case.targets, case.ids, case.valids, 0.1, normalise)
    preds, targets, ids = case.tensors()
    terms = mask_contrastive_terms(*preds, *targets, *ids, normalise=normalise)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, abs=1e-9), name
    preds, targets, ids = case.tensors(torch.float32)
    loss = mask_contrastive_loss(*preds, *targets, *ids, normalise=normalise)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6, abs=2e-6)
    for gradient in torch.autograd.grad(loss, preds):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("all_valid", [False, True])
def test_gradient_equals_differences_of_plain_loops(repeats: bool, all_valid: bool) -> None:
    case = Case(5, 2, 3, repeats=repeats, all_valid=all_valid, d=4)
    preds, targets, ids = case.tensors()
    gradients = torch.autograd.grad(mask_contrastive_loss(*preds, *targets, *ids), preds)
    assert any(g.abs().max() > 1e-3 for g in gradients)
    for v in (0, 1):
        for place in np.ndindex(case.preds[v].shape):
            if not case.valids[v][place[:2]]:
                assert gradients[v][place] == 0
                continue
            values = []
            for step in (1e-6, -1e-6):
                moved = [p.copy() for p in case.preds]
                moved[v][place] += step
                values.append(slow_loss(moved, case.targets, case.ids, case.valids)["loss"])
            assert float(gradients[v][place]) == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_lightly_where_all_slots_are_valid(repeats: bool, dtype: torch.dtype, temperature: float) -> None:
    from lightly.loss import DetConBLoss

    case = Case(1, 4, 16, repeats=repeats, all_valid=True, d=32)
    preds, targets, ids = case.tensors(dtype)
    ours = mask_contrastive_loss(*preds, *targets, *ids, temperature=temperature)
    theirs = DetConBLoss(temperature=temperature, gather_distributed=False)(*preds, *targets, *ids)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    for a, b in zip(torch.autograd.grad(ours, preds), torch.autograd.grad(theirs, preds), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=0)
        assert a.abs().max() > 1e-4


def test_what_an_invalid_slot_holds_does_not_matter() -> None:
    case = Case(2, 3, 4, repeats=False, all_valid=False)
    preds, targets, ids = case.tensors()
    valid = [torch.tensor(v) for v in case.valids]
    expected = mask_contrastive_loss(*preds, *targets, *ids)
    for rubbish in (7.0, float("nan")):
        filled = [
            torch.where(v[..., None], x.detach(), rubbish) for v, x in zip(valid * 2, preds + targets, strict=True)
        ]
        named = [torch.where(v, i, 0) for v, i in zip(valid, ids, strict=True)]
        filled = [f.requires_grad_() if n < 2 else f for n, f in enumerate(filled)]
        loss = mask_contrastive_loss(*filled, *named, *valid)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
        for gradient, v in zip(torch.autograd.grad(loss, filled[:2]), valid, strict=True):
            assert gradient.isfinite().all()
            assert not gradient[~v].any()


def test_no_anchor_matched_gives_zero() -> None:
    preds = [torch.randn(2, 3, 4, requires_grad=True) for _ in range(2)]
    targets = [torch.randn(2, 3, 4) for _ in range(2)]
    apart = [torch.arange(3).repeat(2, 1), torch.arange(3, 6).repeat(2, 1)]
    for ids in (apart, [torch.full((2, 3), -1)] * 2):
        for normalise in ("slots", "matched"):
            terms = mask_contrastive_terms(*preds, *targets, *ids, normalise=normalise)
            assert [t.item() for t in terms.values()] == [0, 0, 0]
            assert all(not g.any() for g in torch.autograd.grad(terms["loss"], preds))


def test_a_valid_zero_vector_is_not_normalised() -> None:
    pred = torch.zeros(1, 2, 3, requires_grad=True)
    ids = torch.tensor([[0, 1]])
    loss = mask_contrastive_loss(pred, pred, torch.zeros(1, 2, 3), torch.randn(1, 2, 3), ids, ids)
    (gradient,) = torch.autograd.grad(loss, pred)
    assert loss.isfinite()
    assert gradient.abs().max() < 1e3


def test_autocast_and_half_precision_are_left() -> None:
    case = Case(3, 4, 8, repeats=False, all_valid=False)
    preds, targets, ids = case.tensors(torch.float32)
    expected = mask_contrastive_loss(*preds, *targets, *ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mask_contrastive_loss(*preds, *targets, *ids)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()
    halves = [x.detach().half() for x in preds + targets]
    assert (
        mask_contrastive_loss(*halves, *ids).item() == mask_contrastive_loss(*[h.float() for h in halves], *ids).item()
    )


def test_targets_get_no_gradient() -> None:
    case = Case(3, 2, 4, repeats=False, all_valid=True)
    preds, targets, ids = case.tensors()
    targets = [t.requires_grad_() for t in targets]
    mask_contrastive_loss(*preds, *targets, *ids).backward()
    assert all(t.grad is None for t in targets)


def test_errors() -> None:
    x, ids = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="B, R, D"):
        mask_contrastive_loss(x, x, x, x[:1], ids, ids)
    with pytest.raises(ValueError, match="one for each slot"):
        mask_contrastive_loss(x, x, x, x, ids, ids[:, :2])
    with pytest.raises(ValueError, match="'slots' or 'matched', got 'all'"):
        mask_contrastive_loss(x, x, x, x, ids, ids, normalise="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive number"):
        mask_contrastive_loss(x, x, x, x, ids, ids, temperature=0)


WORKER = """
import sys, torch, torch.distributed as dist
from cyborgs.losses import mask_contrastive_loss
folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
preds, targets, ids = torch.load(f"{folder}/case.pt")
half = slice(2 * rank, 2 * rank + 2)
results = []
for normalise in ("slots", "matched"):
    mine = [p[half].clone().requires_grad_() for p in preds]
    loss = mask_contrastive_loss(*mine, *[t[half] for t in targets], *[i[half] for i in ids], normalise=normalise)
    loss.backward()
    results.append((loss.detach(), [p.grad for p in mine]))
torch.save(results, f"{folder}/result{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    case = Case(4, 4, 5, repeats=True, all_valid=False)
    preds, targets, ids = case.tensors()
    torch.save(([p.detach() for p in preds], targets, ids), tmp_path / "case.pt")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)], env=environment) for rank in range(2)
    ]
    assert [w.wait(timeout=60) for w in workers] == [0, 0]
    parts = [torch.load(tmp_path / f"result{rank}.pt") for rank in range(2)]
    for n, normalise in enumerate(("slots", "matched")):
        whole = mask_contrastive_loss(*preds, *targets, *ids, normalise=normalise)  # type: ignore[arg-type]
        # DDP takes the mean over processes, of losses and of gradients.
        assert (parts[0][n][0] + parts[1][n][0]).item() / 2 == pytest.approx(whole.item(), abs=1e-12)
        for v, gradient in enumerate(torch.autograd.grad(whole, preds)):
            joined = torch.cat([part[n][1][v] for part in parts]) / 2
            assert torch.allclose(joined, gradient, atol=1e-12, rtol=0)
            assert gradient.abs().max() > 1e-4
