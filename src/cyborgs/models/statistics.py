"""Whose statistics BatchNorm takes: those of all processes, of each, or of parts of each process's images."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyborgs import distributed
from cyborgs.errors import UserError
from cyborgs.models.batchnorm import convert_batchnorm


def set_batchnorm(module: nn.Module, behaviour: str, world: int = 1, device_type: str = "cpu") -> None:
    """Make every BatchNorm inside behave as ``MethodConfig.batchnorm`` says, in place, of the same names and buffers.

    Raises:
        UserError: no such behaviour.
    """
    split = re.fullmatch(r"split\(([1-9]\d{0,4})\)", behaviour)
    if behaviour == "sync":
        if world > 1:
            convert_batchnorm(module, device_type)
    elif split:
        _split(module, int(split[1]))
    elif behaviour not in ("plain", "shuffle"):
        raise UserError(
            f"method.batchnorm: need sync, plain, shuffle or split(n), for example split(8), got {behaviour}"
        )


class SplitBatchNorm(_BatchNorm):
    """nn.BatchNorm of n parts of the batch, one after another: in train mode each part has statistics of its own.

    As if each part were on a device of its own (He et al., 2020: MoCo), so that one device behaves like n. Running
    statistics move once, by the mean over the parts. A batch of fewer than n images has as many parts as images.
    """

    parts: int

    def _check_input_dim(self, input: Tensor) -> None:
        if not 2 <= input.dim() <= 5 or input.shape[1] != self.num_features:
            raise ValueError(f"expected (N, {self.num_features}, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape and dtype."""
        self._check_input_dim(input)
        if not self.training or self.running_mean is None or self.running_var is None:
            whole: Tensor = super().forward(input)
            return whole
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum or 1 / float(self.num_batches_tracked)
        found, moved = [], []
        for part in input.tensor_split(min(self.parts, len(input))):
            running = self.running_mean.clone(), self.running_var.clone()
            found.append(nn.functional.batch_norm(part, *running, self.weight, self.bias, True, momentum, self.eps))
            moved.append(torch.stack(running))
        mean, variance = torch.stack(moved).mean(dim=0)
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)
        return torch.cat(found)


class SplitBatchNormAct(SplitBatchNorm):
    """The same for timm's BatchNormAct2d, which holds its activation (and a dropping of blocks) inside."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape and dtype."""
        result: Tensor = self.act(self.drop(super().forward(input)))
        return result


def _split(module: nn.Module, parts: int) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            kind = SplitBatchNormAct if isinstance(getattr(child, "act", None), nn.Module) else SplitBatchNorm
            new = kind(child.num_features)
            new.__dict__.update(child.__dict__)  # the same parameters, buffers, settings and activation
            new.parts = parts
            setattr(module, name, new)
        else:
            _split(child, parts)
    # A Backbone's traced extractors still hold the modules that were replaced.
    forget = getattr(module, "forget_extractors", None)
    if callable(forget):
        forget()


@torch.no_grad()
def encode_shuffled(encode: Callable[[Tensor], Tensor], images: Tensor, seed: int) -> Tensor:
    """Images through a network that takes statistics of each process's own images, dealt anew among the processes.

    So no image is normalised beside the one that it is compared with (MoCo's shuffling BN). In one process this is
    ``encode`` alone: ``split(n)`` is what one device has instead. A collective call.

    Args:
        encode: (B, ...) -> (B, ...).
        images: (B, ...), as many in each process.
        seed: the same in all processes; another at each step.

    Returns:
        What ``encode`` gives for this process's ``images``, in their order, without gradient.
    """
    if not distributed.is_distributed():
        return encode(images)
    count = len(images)
    own = slice(distributed.rank() * count, (distributed.rank() + 1) * count)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(distributed.world_size() * count, generator=generator).to(images.device)
    encoded = distributed.all_gather(encode(distributed.all_gather(images)[order[own]]))
    return encoded[order.argsort()[own]]
