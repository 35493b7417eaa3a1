"""BatchNorm of parts of a batch, and images dealt anew among processes, against plain numpy."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from cyborgs.errors import UserError
from cyborgs.models.backbone import Backbone
from cyborgs.models.batchnorm import BatchNorm
from cyborgs.models.config import BackboneConfig
from cyborgs.models.statistics import SplitBatchNorm, SplitBatchNormAct, encode_shuffled, set_batchnorm
from tests.runs.launch import CONTEXT


def split(parts: int, channels: int = 3) -> nn.BatchNorm2d:
    holder = nn.Sequential(nn.BatchNorm2d(channels).double())
    with torch.no_grad():
        holder[0].weight.copy_(torch.tensor([2.0, 1.0, 0.5]))
        holder[0].bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    set_batchnorm(holder, f"split({parts})")
    assert type(holder[0]) is SplitBatchNorm
    return holder[0]  # type: ignore[return-value]


def test_each_part_has_statistics_of_its_own() -> None:
    x = np.random.default_rng(0).normal(2, 3, (6, 3, 4, 5))
    norm = split(3)
    found = norm(torch.from_numpy(x)).detach().numpy()
    scale, bias = np.array([2.0, 1.0, 0.5]), np.array([0.0, 1.0, -1.0])
    means, variances = [], []
    for start in (0, 2, 4):
        for c in range(3):
            values = x[start : start + 2, c]
            expected = (values - values.mean()) / np.sqrt(values.var() + 1e-5) * scale[c] + bias[c]
            np.testing.assert_allclose(found[start : start + 2, c], expected, rtol=1e-12, atol=1e-12)
        means.append(x[start : start + 2].mean(axis=(0, 2, 3)))
        variances.append(x[start : start + 2].var(axis=(0, 2, 3), ddof=1))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * np.mean(means, axis=0), rtol=1e-12)
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * np.mean(variances, axis=0), rtol=1e-12)
    assert int(norm.num_batches_tracked) == 1  # type: ignore[arg-type]
    np.testing.assert_allclose(  # in eval mode there are no parts
        norm.eval()(torch.from_numpy(x)).detach().numpy()[:, 0],
        (x[:, 0] - float(norm.running_mean[0])) / np.sqrt(float(norm.running_var[0]) + 1e-5) * 2,
        rtol=1e-10,
    )


def test_a_backbone_keeps_its_names_and_activations() -> None:
    """One part is the network as it was, forward and running statistics."""
    before, after = (Backbone(BackboneConfig(name="timm:test_resnet")) for _ in range(2))
    after.load_state_dict(before.state_dict())
    x = before.normalise(torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8))
    after(x, ("layer4",))  # an extractor of the modules that are replaced
    after.load_state_dict(before.state_dict())
    set_batchnorm(after, "split(1)")
    assert any(isinstance(m, SplitBatchNorm) for m in after.modules())
    assert torch.equal(before(x, ("layer4",))["layer4"], after(x, ("layer4",))["layer4"])
    found = after.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in before.state_dict().items())
    set_batchnorm(after, "split(2)")
    halves = after(x, ("layer4",))["layer4"]
    torch.testing.assert_close(halves[:2], before(x[:2], ("layer4",))["layer4"])


def test_timms_norms_keep_their_activation() -> None:
    """Theirs hold it inside."""
    holder = nn.Sequential(BatchNormAct2d(3))
    x = torch.randn(4, 3, 5, 5)
    expected = holder(x[2:])
    set_batchnorm(holder, "split(2)")
    assert type(holder[0]) is SplitBatchNormAct
    torch.testing.assert_close(holder(x)[2:], expected)
    assert float(expected.detach().min()) == 0


def test_behaviours_by_name() -> None:
    for behaviour in ("plain", "shuffle", "sync"):
        holder = nn.Sequential(nn.BatchNorm2d(3))
        set_batchnorm(holder, behaviour, world=2)
        assert type(holder[0]) is (BatchNorm if behaviour == "sync" else nn.BatchNorm2d)
    for wrong in ("none", "split", "split(0)", "split(x)"):
        with pytest.raises(UserError, match=r"method.batchnorm: need sync, plain, shuffle or split\(n\)"):
            set_batchnorm(nn.Sequential(), wrong)


def beside(x: torch.Tensor) -> torch.Tensor:
    """Each image, and the sum of those that it is computed with."""
    return torch.stack([x, x.sum().expand(len(x))], dim=1)


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    own = torch.arange(4 * rank, 4 * rank + 4).double()
    torch.save(encode_shuffled(beside, own, seed=1), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_images_are_dealt_anew_and_come_back(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CONTEXT.Process(target=work, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    found = torch.cat([torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)])
    assert found[:, 0].tolist() == list(range(8))
    sums = set(found[:, 1].tolist())
    assert sum(sums) == 28  # two hands of four
    for total in sums:
        assert sum(found[found[:, 1] == total, 0].tolist()) == total
    assert sums != {6.0, 22.0}  # not those that were there before
    alone = encode_shuffled(beside, torch.arange(4).double(), seed=1)
    assert alone[:, 1].tolist() == [6.0] * 4
