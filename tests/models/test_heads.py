import pytest
import torch
from torch import nn

from cyborgs.models.heads import MLPHead, embed_valid, valid_rows


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


def test_valid_rows_alone_go_through_the_head() -> None:
    head = MLPHead(6, 8, 4).double()
    pooled = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[True, False, True], [False, True, False]])
    result = embed_valid(head, pooled, valid)
    expected = head(pooled[valid])
    assert torch.equal(result[valid], expected)
    assert result[~valid].abs().max() == 0
    assert torch.equal(embed_valid(head, pooled, valid, valid_rows(valid)), result)
    (gradient,) = torch.autograd.grad(result.square().sum(), pooled)
    (wanted,) = torch.autograd.grad(expected.square().sum(), pooled)
    assert torch.equal(gradient, wanted)
    assert gradient[~valid].abs().max() == 0
    # What the absent regions hold does not matter, NaN included.
    spoiled = torch.where(valid[..., None], pooled, torch.nan)
    assert torch.equal(embed_valid(head, spoiled, valid), result)


@pytest.mark.parametrize("rows", [0, 1])
def test_next_to_no_rows(rows: int) -> None:
    head = MLPHead(6, 8, 4)
    valid = torch.zeros(2, 3, dtype=torch.bool)
    valid[1, :rows] = True
    pooled = torch.randn(2, 3, 6, requires_grad=True)
    result = embed_valid(head, pooled, valid)
    assert result.shape == (2, 3, 4)
    result.sum().backward()
    for parameter in (*head.parameters(), pooled):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert all(buffer.isfinite().all() for buffer in head.buffers())


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"valid is bool \(2, 3\)"):
        embed_valid(nn.Identity(), torch.zeros(2, 3, 4), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"valid is bool \(2, 3\)"):
        embed_valid(nn.Identity(), torch.zeros(2, 3, 4), torch.ones(2, 4, dtype=torch.bool))


def test_autocast() -> None:
    head = MLPHead(6, 8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = embed_valid(head, torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool))
    assert result.dtype == torch.bfloat16
    assert head.norm.running_var.dtype == torch.float32
