"""BatchNorm over the rows of all processes, on any device, for any number of rows in each of them."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyborgs.distributed import all_reduce_sum, is_distributed

LOW_PRECISION = (torch.float16, torch.bfloat16)


class BatchNorm(_BatchNorm):
    """nn.BatchNorm1d/2d/3d, whose statistics are those of all processes in train mode.

    torch.nn.SyncBatchNorm refuses CPU tensors. In one process, with more than one value a channel, this is
    nn.BatchNorm bit for bit. One value a channel has variance 0 (the result is the bias) and leaves the running
    variance alone, for which it says nothing; no value at all leaves all buffers alone. Processes may have different
    numbers of rows, none included, but each must call it, and each must reach it in the backward pass.

    With a weight per row the rows of weight 0 are as if they were not there, statistics and gradients included, and
    shapes do not depend on their number.

    Statistics are float32 for float16 and bfloat16 input, else of the input's dtype, of centred values: the mean
    first, then the squares of what is left, since E[x^2] - E[x]^2 cancels.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if not 2 <= input.dim() <= 5 or input.shape[1] != self.num_features:
            raise ValueError(f"expected (N, {self.num_features}, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor, row_weight: Tensor | None = None) -> Tensor:
        """(N, C, ...) -> the same shape and dtype.

        ``row_weight`` (N,), each 0 or 1 (bool too): in train mode what the rows of weight 0 hold, NaN included, reaches
        no other row and no gradient; their own results are the bias.
        """
        self._check_input_dim(input)
        plain = row_weight is None and not is_distributed() and input.numel() > self.num_features
        if not self.training or plain:
            result: Tensor = super().forward(input)
            return result
        x = input.float() if input.dtype in LOW_PRECISION else input
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = (1, -1, *[1] * (x.dim() - 2))
        # float64, because float32 counts to 16 million only. Everything stays on the device: nobody waits for it.
        values = x.new_full((1,), x.numel() // self.num_features, dtype=torch.float64)
        kept = None
        if row_weight is not None:
            kept = (row_weight != 0).view(-1, *[1] * (x.dim() - 1))
            x = torch.where(kept, x, 0)
            values = kept.sum(dtype=torch.float64).view(1) * x.shape[2:].numel()
        sums = all_reduce_sum(torch.cat([x.sum(axes).double(), values]))
        count = sums[-1].detach()
        mean = sums[:-1] / count.clamp(min=1)
        centred = x - mean.to(x.dtype).view(shape)
        if kept is not None:
            centred = torch.where(kept, centred, 0)
        variance = all_reduce_sum(centred.square().sum(axes).double()) / count.clamp(min=1)
        self._track(mean, variance, count)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        y = centred * scale.to(x.dtype).view(shape)
        if self.bias is not None:
            y = y + self.bias.to(x.dtype).view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, identically in each process."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += count > 0
        if self.momentum is None:
            factor = 1 / self.num_batches_tracked.clamp(min=1).double()
        else:
            factor = torch.full_like(count, self.momentum)
        unbiased = variance * count / (count - 1).clamp(min=1)
        for running, new, informed in ((self.running_mean, mean, count > 0), (self.running_var, unbiased, count > 1)):
            # .data: an earlier call in this step (the other view) may have saved this buffer for its backward pass,
            # which does not use its value. torch's own kernel moves it without counting a version, too.
            running.data.lerp_(new.to(running.dtype), torch.where(informed, factor, 0).to(running.dtype))


class BatchNormAct(BatchNorm):
    """The same for timm's BatchNormAct2d, which holds its activation (and a dropping of blocks) inside."""

    def __init__(self, num_features: int, drop: nn.Module, act: nn.Module) -> None:
        super().__init__(num_features)
        self.drop = drop
        self.act = act

    def forward(self, input: Tensor, row_weight: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> the same shape and dtype."""
        result: Tensor = self.act(self.drop(super().forward(input, row_weight)))
        return result


def convert_batchnorm(module: nn.Module, device_type: str = "cpu") -> nn.Module:
    """Replace every nn.BatchNorm inside by a synchronised one of the same parameters, buffers and names.

    torch.nn.SyncBatchNorm on ``cuda``, where it is fastest; ours elsewhere. Modules that are ours stay: they work
    everywhere. Call it where there are several processes, before parameters are handed to anyone.

    Returns:
        ``module``, changed in place; another module only if it is a BatchNorm itself.
    """
    if isinstance(module, _BatchNorm):
        return _converted(module, torch.device(device_type).type)
    for name, child in module.named_children():
        replacement = convert_batchnorm(child, device_type)
        if replacement is not child:
            setattr(module, name, replacement)
    # A Backbone's traced extractors still hold the modules that were replaced.
    forget = getattr(module, "forget_extractors", None)
    if callable(forget):
        forget()
    return module


def _converted(old: _BatchNorm, device_type: str) -> nn.Module:
    if isinstance(old, (BatchNorm, nn.SyncBatchNorm)):
        return old
    holds_act = isinstance(getattr(old, "act", None), nn.Module)
    if device_type == "cuda":
        home = importlib.import_module("timm.layers") if holds_act else nn.SyncBatchNorm
        synchronised: nn.Module = home.convert_sync_batchnorm(old)
        return synchronised.train(old.training)
    if holds_act:
        new: BatchNorm = BatchNormAct(old.num_features, old.drop, old.act)  # type: ignore[arg-type]
    else:
        new = BatchNorm(old.num_features)
    new.eps, new.momentum, new.affine = old.eps, old.momentum, old.affine
    new.track_running_stats, new.training = old.track_running_stats, old.training
    # The same objects, on the same device.
    new.weight, new.bias = old.weight, old.bias
    new.running_mean, new.running_var, new.num_batches_tracked = (
        old.running_mean,
        old.running_var,
        old.num_batches_tracked,
    )
    return new
