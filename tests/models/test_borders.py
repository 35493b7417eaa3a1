"""Photos mirrored beyond their edges before the network sees them."""

from __future__ import annotations

import pytest
import torch

from cyborgs.models.backbone import Backbone
from cyborgs.models.borders import photo_maps
from cyborgs.models.config import BackboneConfig

LAYERS = ("layer2", "layer3", "layer4")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneConfig(name="timm:test_resnet"), LAYERS).eval()


@pytest.mark.parametrize("size", [(64, 96), (50, 71), (33, 40), (8, 200)])
def test_the_cells_stay_where_they_are(backbone: Backbone, size: tuple[int, int]) -> None:
    """Of a photo that is the middle of a larger one, the cells that the zeros beyond do not reach are equal."""
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    plain, mirrored = photo_maps(backbone, images, LAYERS), photo_maps(backbone, images, LAYERS, 64)
    assert {n: m.shape for n, m in plain.items()} == {n: m.shape for n, m in mirrored.items()}
    assert not torch.allclose(plain["layer2"], mirrored["layer2"])


def test_far_from_the_edge_nothing_changes(backbone: Backbone) -> None:
    """The middle cell's receptive field at stride 8 ends within 96 pixels."""
    images = torch.randint(0, 256, (1, 3, 320, 320), dtype=torch.uint8)
    plain, mirrored = photo_maps(backbone, images, ("layer2",)), photo_maps(backbone, images, ("layer2",), 64)
    torch.testing.assert_close(plain["layer2"][:, :, 20, 20], mirrored["layer2"][:, :, 20, 20])
    assert not torch.allclose(plain["layer2"][:, :, 0, 0], mirrored["layer2"][:, :, 0, 0])


@torch.no_grad()
def test_a_flat_photo_has_no_rim(backbone: Backbone) -> None:
    flat = torch.full((1, 3, 128, 128), 200, dtype=torch.uint8)
    cells = photo_maps(backbone, flat, ("layer2",), 96)["layer2"]
    torch.testing.assert_close(cells, cells[:, :, 8:9, 8:9].expand_as(cells), rtol=1e-4, atol=1e-5)
    rim = photo_maps(backbone, flat, ("layer2",))["layer2"]
    assert float((rim[:, :, 0] - rim[:, :, 8]).abs().max()) > 1e-3
