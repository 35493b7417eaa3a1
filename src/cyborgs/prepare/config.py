"""Settings of what is prepared of the photos. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cyborgs.masks.config import SelectiveSearchConfig


@dataclass(frozen=True)
class PrepareConfig:
    """What is made of the photos once, where crops or the method ask for it by name: boxes, saliency, neighbours."""

    boxes: SelectiveSearchConfig = field(default_factory=SelectiveSearchConfig)
    """Boxes: of selective search, with ORL's filter."""
    saliency: str = ""
    """Folder of saliency maps, grey PNGs named as the photos; empty: spectral residual (Hou and Zhang, CVPR 2007)."""
    neighbours: int = 10
    """Neighbours of a photo: those whose features by the network's first weights are most similar."""

    def located(self) -> PrepareConfig:
        """The same with an absolute path in ``saliency``, so that a run can go on from another working directory."""
        return replace(self, saliency=str(Path(self.saliency).expanduser().absolute())) if self.saliency else self

    def __post_init__(self) -> None:
        if not 1 <= self.neighbours <= 1000:
            raise ValueError(f"prepare.neighbours: need 1 to 1000, got {self.neighbours}")
