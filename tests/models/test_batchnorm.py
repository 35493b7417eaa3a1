import copy

import pytest
import torch
from torch import nn

from cyborgs.models.backbone import Backbone
from cyborgs.models.batchnorm import BatchNorm, convert_batchnorm
from cyborgs.models.config import BackboneConfig
from cyborgs.models.heads import MLPHead


@pytest.mark.parametrize("shape", [(2, 4), (7, 4), (3, 4, 5), (1, 4, 3, 2), (2, 4, 3, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_one_process_is_nn_batchnorm_bit_for_bit(
    shape: tuple[int, ...], dtype: torch.dtype, momentum: float | None
) -> None:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    reference, ours = kind(4, momentum=momentum), BatchNorm(4, momentum=momentum)
    if dtype == torch.float64:
        reference, ours = reference.double(), ours.double()
    assert list(reference.state_dict()) == list(ours.state_dict())
    with torch.no_grad():
        reference.weight.normal_()
        reference.bias.normal_()
    ours.load_state_dict(reference.state_dict())
    for training in (True, True, False):
        x = torch.randn(shape).to(dtype)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected, result = reference.train(training)(a), ours.train(training)(b)
        expected.square().sum().backward()
        result.square().sum().backward()
        assert torch.equal(result, expected)
        assert torch.equal(a.grad, b.grad)
        assert torch.equal(reference.weight.grad, ours.weight.grad)
        assert all(torch.equal(v, ours.state_dict()[n]) for n, v in reference.state_dict().items())


def test_one_value_or_none() -> None:
    norm = BatchNorm(3).double()
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.tensor([[5.0, -7.0, 1e9]], dtype=torch.float64, requires_grad=True)
    y = norm(x)
    assert torch.equal(y, norm.bias[None])
    y.square().sum().backward()
    assert x.grad.abs().max() == 0
    assert torch.equal(norm.running_var, torch.ones(3).double())
    torch.testing.assert_close(norm.running_mean, 0.1 * x[0].detach())
    assert norm.num_batches_tracked == 1
    before = copy.deepcopy(norm.state_dict())
    empty = norm(torch.zeros(0, 3).double())
    empty.sum().backward()
    assert empty.shape == (0, 3)
    assert all(torch.equal(v, before[n]) for n, v in norm.state_dict().items())
    assert norm.eval()(torch.zeros(0, 3).double()).shape == (0, 3)
    with pytest.raises(ValueError, match=r"expected \(N, 3, ...\)"):
        norm(torch.zeros(2, 4).double())


def test_one_row_after_many_leaves_the_backward_pass_of_the_many_alone() -> None:
    # The second view of a step has one region: its running statistics move before the first view's backward pass.
    norm = BatchNorm(3)
    many, one = torch.randn(5, 3, requires_grad=True), torch.randn(1, 3, requires_grad=True)
    (norm(many).pow(3).sum() + norm(one).sum() + norm(many).pow(3).sum()).backward()
    reference = nn.BatchNorm1d(3)
    (gradient,) = torch.autograd.grad(2 * reference(many).pow(3).sum(), many)
    torch.testing.assert_close(many.grad, gradient)


def test_the_synchronised_path_does_not_cancel(monkeypatch) -> None:
    # Mean 10,000 times the deviation: E[x^2] - E[x]^2 in float32 would have no correct digit.
    monkeypatch.setattr("cyborgs.models.batchnorm.is_distributed", lambda: True)
    torch.manual_seed(0)
    x = torch.randn(4000, 2) + 1e4
    norm = BatchNorm(2)
    y = norm(x)
    expected = nn.BatchNorm1d(2).double()
    torch.testing.assert_close(y.double(), expected(x.double()), rtol=1e-2, atol=2e-3)
    torch.testing.assert_close(norm.running_var.double(), expected.running_var, rtol=1e-4, atol=0)
    low = norm(torch.randn(6, 2, dtype=torch.bfloat16))
    assert low.dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32


def test_row_weights_count_every_value_of_a_row() -> None:
    torch.manual_seed(0)
    kept = torch.tensor([True, False, True, True, False])
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    norm, reference = BatchNorm(3).double(), nn.BatchNorm2d(3).double()
    torch.testing.assert_close(norm(x, kept)[kept], reference(x[kept]), rtol=1e-12, atol=1e-12)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_convert_keeps_names_parameters_and_modes() -> None:
    torch.manual_seed(0)
    for name in ("resnet18", "timm:efficientnet_lite0"):  # timm's holds the activation in its BatchNorm
        model = Backbone(BackboneConfig(name=name), ["layer2"] if name == "resnet18" else ["blocks.2"])
        x = torch.randn(2, 3, 64, 64)
        plain = copy.deepcopy(model)
        model(x)  # an extractor is there before the conversion
        model.load_state_dict(plain.state_dict())
        parameters = {id(p) for p in model.parameters()}
        frozen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        frozen.eval()
        convert_batchnorm(model)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert all(isinstance(m, BatchNorm) for m in norms)
        assert [m.training for m in norms] == [False] + [True] * (len(norms) - 1)
        assert {id(p) for p in model.parameters()} == parameters
        assert list(model.state_dict()) == list(plain.state_dict())
        model.train()
        called: list[nn.Module] = []
        norms[0].register_forward_hook(lambda m, _i, _o, called=called: called.append(m))
        assert all(torch.equal(a, b) for a, b in zip(model(x).values(), plain(x).values(), strict=True))
        assert called == [norms[0]]  # the extractor of before is not used any more
        assert all(torch.equal(v, plain.state_dict()[n]) for n, v in model.state_dict().items())


def test_convert_for_cuda_takes_torchs_own_and_leaves_ours() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), MLPHead(4, 4, 4))
    convert_batchnorm(module, "cuda")
    assert isinstance(module[1], nn.SyncBatchNorm)
    assert isinstance(module[2].norm, BatchNorm)
    assert isinstance(convert_batchnorm(nn.BatchNorm1d(3)), BatchNorm)
