from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from cyborgs.models.heads import MLPHead


def test_parameter_counts_are_byols() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in MLPHead(3584, 4096, 256).parameters()) == 15_740_928
        assert sum(p.numel() for p in MLPHead(256, 4096, 256).parameters()) == 2_109_440


def test_head_is_linear_batchnorm_relu_linear() -> None:
    head = MLPHead(6, 8, 4)
    x = torch.randn(5, 6)
    norm = nn.BatchNorm1d(8)
    expected = torch.relu(norm(x @ head.hidden.weight.T + head.hidden.bias)) @ head.outputs.weight.T
    torch.testing.assert_close(head(x), expected)
    assert head.outputs.bias is None


def valid_rows_alone(head: nn.Module, x: Tensor, valid: Tensor) -> Tensor:
    """The oracle: only valid rows go through the head, and zeros stand where the others were."""
    rows = valid.nonzero().squeeze(1)
    embedded = head(x.index_select(0, rows))
    return embedded.new_zeros(len(x), embedded.shape[1]).index_copy(0, rows, embedded)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("kind", [torch.bool, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_weights_leave_rows_out(count: int, kind: torch.dtype, training: bool) -> None:
    torch.manual_seed(count)
    ours, theirs = (nn.ModuleList([MLPHead(6, 8, 4), MLPHead(4, 8, 3)]).double() for _ in range(2))
    with torch.no_grad():
        for p in ours.parameters():
            p.normal_()
    theirs.load_state_dict(ours.state_dict())
    valid = torch.zeros(9, dtype=torch.bool)
    valid[torch.randperm(9)[:count]] = True
    found, expected = [], []
    for _ in range(3):  # running statistics move thrice
        x = 3 + torch.randn(9, 6, dtype=torch.float64)
        for heads, results in ((ours.train(training), found), (theirs.train(training), expected)):
            rows = x.clone().requires_grad_()
            heads.zero_grad()
            y = rows
            for head in heads:
                y = head(y, valid.to(kind)) if heads is ours else valid_rows_alone(head, y, valid)
            (y.pow(3).sum() + y.square().sum()).backward()
            results += [y.detach(), rows.grad, *(p.grad for p in heads.parameters())]
    results = [*zip(found, expected, strict=True), *zip(ours.buffers(), theirs.buffers(), strict=True)]
    for ours_, theirs_ in results:
        torch.testing.assert_close(ours_, theirs_, rtol=1e-10, atol=1e-10)
    for tensor in found[:2]:
        assert torch.equal(tensor[~valid], torch.zeros_like(tensor[~valid]))
    assert count < 2 or found[1].abs().max() > 0  # one row alone is the bias, whatever it holds


def test_what_is_left_out_may_be_nan() -> None:
    head = MLPHead(6, 8, 4)
    other = deepcopy(head)
    valid = torch.tensor([True, False, True, False])
    x = torch.randn(4, 6)
    a = x.clone().requires_grad_()
    b = torch.where(valid[:, None], x, torch.tensor([[torch.nan, torch.inf, -torch.inf, 1e38, torch.nan, 0.0]]))
    b.requires_grad_()
    for module, rows in ((head, a), (other, b)):
        module(rows, valid).square().sum().backward()
    assert torch.equal(a.grad, b.grad)
    assert b.grad[~valid].abs().max() == 0
    for first, second in zip(head.parameters(), other.parameters(), strict=True):
        assert torch.equal(first.grad, second.grad)
    assert all(torch.equal(p, q) for p, q in zip(head.buffers(), other.buffers(), strict=True))
    assert all(buffer.isfinite().all() for buffer in head.buffers())


def test_one_weight_a_row() -> None:
    with pytest.raises(ValueError, match=r"one weight a row: \(2,\)"):
        MLPHead(4, 4, 4)(torch.zeros(2, 4), torch.ones(3))


def test_autocast() -> None:
    head = MLPHead(6, 8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = head(torch.randn(6, 6), torch.arange(6) < 4)
    assert result.dtype == torch.bfloat16
    assert result[4:].abs().max() == 0
    assert head.norm.running_var.dtype == torch.float32
