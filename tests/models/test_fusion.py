import torch
import torch.nn.functional as F

from cyborgs.models.fusion import concatenate_at


def test_concatenate_at_enlarges_bilinearly_and_leaves_equal_sizes_alone() -> None:
    fine, coarse = torch.randn(2, 3, 12, 20).double(), torch.randn(2, 4, 6, 10).double()
    assert concatenate_at([fine], 12, 20) is fine
    joined = concatenate_at([fine, coarse], 12, 20)
    assert torch.equal(joined[:, :3], fine)
    enlarged = F.interpolate(coarse, size=(12, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(joined[:, 3:], enlarged)
    odd = concatenate_at([coarse], 9, 13)
    torch.testing.assert_close(odd, F.interpolate(coarse, size=(9, 13), mode="bilinear", align_corners=False))


def test_concatenate_at_rounds_reduced_precision_once() -> None:
    torch.manual_seed(0)
    coarse = torch.randn(1, 2, 5, 5).bfloat16()
    wide = F.interpolate(coarse.float(), size=(7, 7), mode="bilinear", align_corners=False)
    assert torch.equal(concatenate_at([coarse], 7, 7), wide.bfloat16())
