"""Settings of the network. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneConfig:
    """Which network, from which weights, for which colours."""

    name: str = "resnet50"
    """A torchvision network (resnet18, resnet50, convnext_tiny, ...) or timm:NAME."""
    init: str = ""
    """Weights to start from: a safetensors or torch file of torchvision's or timm's names; empty: random."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of red, green and blue, for pixels in 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of red, green and blue, for pixels in 0..1."""
    compile: bool = False
    """Run the network through torch.compile: minutes at the start, faster steps on a GPU. Needs a C++ compiler on a CPU."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("backbone.name: need a torchvision name or timm:NAME, got nothing")
        if min(self.std) <= 0:
            raise ValueError(f"backbone.std: need positive numbers, got {self.std}")
