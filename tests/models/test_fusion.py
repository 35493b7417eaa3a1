import torch
import torch.nn.functional as F

from cyborgs.models.fusion import concatenate_at, fuse


def test_fuse_brings_all_layers_to_one_grid() -> None:
    maps = [torch.randn(2, c, s, s, requires_grad=True) for c, s in ((3, 28), (5, 14), (7, 7))]
    fused = fuse(maps, 7)
    assert fused.shape == (2, 15, 7, 7)
    torch.testing.assert_close(fused[:, :3], F.avg_pool2d(maps[0], 4))
    torch.testing.assert_close(fused[:, 3:8], F.avg_pool2d(maps[1], 2))
    assert torch.equal(fused[:, 8:], maps[2])
    fused.sum().backward()
    torch.testing.assert_close(maps[0].grad, torch.full_like(maps[0], 1 / 16))


def test_concatenate_at_enlarges_bilinearly_and_leaves_equal_sizes_alone() -> None:
    fine, coarse = torch.randn(2, 3, 12, 20).double(), torch.randn(2, 4, 6, 10).double()
    assert concatenate_at([fine], 12, 20) is fine
    joined = concatenate_at([fine, coarse], 12, 20)
    assert torch.equal(joined[:, :3], fine)
    enlarged = F.interpolate(coarse, size=(12, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(joined[:, 3:], enlarged, rtol=1e-6, atol=1e-6)
    odd = concatenate_at([coarse], 9, 13)
    torch.testing.assert_close(
        odd, F.interpolate(coarse, size=(9, 13), mode="bilinear", align_corners=False), rtol=1e-6, atol=1e-6
    )
