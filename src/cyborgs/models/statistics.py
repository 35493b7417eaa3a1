"""Whose statistics BatchNorm takes: those of all processes, of each, or of parts of each process's images."""

from __future__ import annotations

from torch import nn

from cyborgs.models.batchnorm import convert_batchnorm


def set_batchnorm(module: nn.Module, behaviour: str, world: int = 1, device_type: str = "cpu") -> None:
    """Make every BatchNorm inside behave as ``MethodConfig.batchnorm`` says, in place.

    Raises:
        ValueError: no such behaviour.
    """
    if behaviour == "sync":
        if world > 1:
            convert_batchnorm(module, device_type)
    elif behaviour not in ("plain", "shuffle"):
        raise ValueError(f"batchnorm: need sync, plain or shuffle, got {behaviour!r}")
