"""Settings of what is measured while a run goes. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MonitorConfig:
    """What is measured while the run goes; it changes nothing of the run."""

    every: int = 0
    """Epochs between measurements, the first before the first step; one more at the end. 0: none."""
    labelled: str = ""
    """Folder with a subfolder for each class (nearest neighbours vote), or a list of 'image label' lines (linear
    segmentation probe); empty: only what needs no labels."""
    protocol: str = ""
    """A protocol of `cyborgs evaluate`, with preset small, on monitor.labelled in its layout, in place of votes and probes."""
    classes: int = 0
    """Number of classes in the label images of a list."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"monitor.every: need 0 (none) or a number of epochs, got {self.every}")
        if self.classes != 0 and not 2 <= self.classes <= 256:
            raise ValueError(f"monitor.classes: need 2 to 256, got {self.classes}")
        if self.protocol and not self.labelled:
            raise ValueError("monitor.labelled: need the labelled photos for monitor.protocol, got nothing")
        if self.every == 0 and (self.labelled or self.classes):
            raise ValueError("monitor.every: need at least 1 where monitor.labelled or monitor.classes is given, got 0")
