"""torchvision's and timm's networks by name, and which maps they make: found by running them once, not by lists."""

from __future__ import annotations

import difflib
import importlib
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cyborgs.errors import UserError

PROBE = 128
"""Side of the picture that a network is tried on: 4 x 4 cells at stride 32, and cheap."""
LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True)
class Map:
    """The output of one module, where it is a square map."""

    width: int
    """Channels."""
    stride: int
    """Pixels a cell; the nearest power of two where the network pads oddly."""
    exact: bool
    """Whether the stride divides the picture."""
    order: int
    """Place in the order in which modules finish: a container comes after what it holds."""
    value: int
    """Equal for modules that return the very same tensor, as a container and its last module do."""


class Dropped(nn.Module):
    """Stands where a head was: gives back what it was given."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x`` itself."""
        return x


def build_network(name: str, weights: str | bool = False) -> nn.Module:
    """The network with its head, in train mode; random weights from torch's global generator.

    Args:
        name: torchvision's name, or ``timm:NAME``.
        weights: what the library itself downloads: torchvision's name of weights (``DEFAULT``), True for timm.

    Raises:
        UserError: there is no network, or no weights, of that name.
    """
    if name.startswith("timm:"):
        # In here, because importing timm takes seconds that torchvision's networks need not wait for.
        timm = importlib.import_module("timm")
        plain = name.removeprefix("timm:")
        if not timm.is_model(plain):
            raise _unknown(name, [f"timm:{known}" for known in timm.list_models()])
        network: nn.Module = timm.create_model(plain, pretrained=bool(weights))
        return network.train()
    models = importlib.import_module("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(name, known)
    if weights and weights not in (names := [w.name for w in models.get_model_weights(name)] + ["DEFAULT"]):
        raise UserError(f"backbone.init: torchvision has no weights {weights!r} of {name}; it has {', '.join(names)}")
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce that their initialisation will change.
        warnings.simplefilter("ignore", FutureWarning)
        network = models.get_model(name, weights=weights or None)
    return network.train()


def _unknown(name: str, known: list[str]) -> UserError:
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    return UserError(
        f"backbone.name: no network {name!r}; "
        + (f"close to it: {', '.join(close)}" if close else "torchvision's have plain names, timm's begin with 'timm:'")
    )


@contextmanager
def same_modes(module: nn.Module) -> Iterator[None]:
    """Afterwards each module inside is again in train or eval mode, as it was on its own."""
    modes = [(m, m.training) for m in module.modules()]
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def probe(network: nn.Module, name: str) -> tuple[dict[str, Map], list[str]]:
    """Run the network once on a small picture: its square maps by module name, and all modules as they finished.

    Draws no random number and leaves weights, buffers and modes as they were.

    Raises:
        UserError: the network cannot be run, or makes no square map (it is no convolutional network).
    """
    finished: list[str] = []
    outputs: dict[str, Any] = {}

    def watch(module_name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            finished.append(module_name)
            outputs[module_name] = output  # kept alive: an id is not given to a second tensor

        return hook

    # Without this BatchNorm's output would be the very tensor that the ReLU after it wrote.
    inplace = [m for m in network.modules() if getattr(m, "inplace", False) is True]
    handles = [m.register_forward_hook(watch(n)) for n, m in network.named_modules() if n]
    try:
        for m in inplace:
            m.inplace = False  # type: ignore[assignment]
        with same_modes(network), torch.no_grad():
            network.eval()
            weight = next(network.parameters())
            network(torch.zeros(1, 3, PROBE, PROBE, device=weight.device, dtype=weight.dtype))
    except Exception as error:  # whatever a network of someone else's raises
        raise UserError(f"backbone.name: {name} cannot be run on {PROBE} x {PROBE} pixels: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
        for m in inplace:
            m.inplace = True  # type: ignore[assignment]

    modules = dict(network.named_modules())
    maps = {
        n: Map(x.shape[1], _stride(x.shape[2]), PROBE % x.shape[2] == 0, finished.index(n), id(x))
        for n, x in outputs.items()
        # Not square: channels last, as in Swin. One cell: pooled. Identity: a second name for another's map.
        if isinstance(x, Tensor)
        and x.dim() == 4
        and x.shape[2] == x.shape[3] > 1
        and not isinstance(modules[n], nn.Identity)
    }
    if not maps:
        raise UserError(f"backbone.name: {name} makes no square maps; a convolutional network is needed")
    return maps, finished


def _stride(cells: int) -> int:
    if PROBE % cells == 0:
        return PROBE // cells
    return 1 << round(math.log2(PROBE / cells))  # a network that pads too little loses a cell here and there


def drop_head(network: nn.Module, maps: dict[str, Map], finished: list[str]) -> tuple[str, ...]:
    """Replace, in place, what holds weights and does not serve the last map; the names of what was dropped.

    Whatever finished before the last map is the trunk. What never ran in eval mode goes too (auxiliary heads), unless the
    network cannot be run without it: Swin reads the weights of layers that it never calls.
    """
    last = max(m.order for m in maps.values())
    trunk = set(finished[: last + 1])
    dropped: dict[str, tuple[nn.Module, str, nn.Module]] = {}

    def visit(module: nn.Module, prefix: str) -> None:
        for child_name, child in list(module.named_children()):
            name = f"{prefix}{child_name}"
            if any(inner == name or inner.startswith(f"{name}.") for inner in trunk):
                visit(child, f"{name}.")
            elif next(child.parameters(), None) is not None or next(child.buffers(), None) is not None:
                setattr(module, child_name, Dropped())
                dropped[name] = module, child_name, child

    visit(network, "")
    never_ran = [n for n in dropped if not any(f == n or f.startswith(f"{n}.") for f in finished)]
    if never_ran:
        try:
            probe(network, "the network without its head")
        except UserError:
            for name in never_ran:
                module, child_name, child = dropped.pop(name)
                setattr(module, child_name, child)
    return tuple(dropped)


def stage_ends(network: nn.Module, maps: dict[str, Map]) -> dict[int, str]:
    """Stride -> name of the last map of that stride, for 8, 16 and 32 as far as they exist.

    A timm network says it itself. Otherwise it is the outermost module of that stride which holds no
    several stages (in torchvision's ConvNeXt ``features`` holds all of them), and the last of those: a norm deep
    inside a downsampling layer, though later, is no stage.
    """
    info = getattr(network, "feature_info", None)
    entries = getattr(info, "info", info)
    if isinstance(entries, list) and all(isinstance(e, dict) and {"module", "reduction"} <= e.keys() for e in entries):
        ends = {e["reduction"]: e["module"] for e in entries if e["module"] in maps}
        if all(s in ends and maps[ends[s]].stride == s for s in (8, 16, 32)):
            return {s: ends[s] for s in (8, 16, 32)}
    ends = {}
    for stride in (8, 16, 32):
        names = [n for n, m in maps.items() if m.exact and m.stride == stride and not _several_stages(n, maps)]
        if names:
            ends[stride] = min(names, key=lambda n: (n.count("."), -maps[n].order))
    return ends


def _several_stages(name: str, maps: dict[str, Map]) -> bool:
    strides = {m.stride for n, m in maps.items() if n.startswith(f"{name}.") and n.count(".") == name.count(".") + 1}
    return len(strides) > 1


def last_block(network: nn.Module, maps: dict[str, Map], stage: str) -> str:
    """Name of the block that clustering uses, of the stage at stride 8 (docs/method.md, "Names").

    The last block; but in ResNet-50 it is ``layer2.2``, since the paper's res2.b2 counts blocks from 0 and its
    Table 2d calls that one best.
    """
    row: nn.Module = network.get_submodule(stage)
    inner = [n for n in maps if n.startswith(f"{stage}.") and n.count(".") == stage.count(".") + 1]
    if not inner:
        return stage
    last = max(inner, key=lambda n: maps[n].order)
    if not isinstance(row, nn.Sequential) and isinstance(network.get_submodule(last), nn.Sequential):
        # timm's ConvNeXt: a stage is a downsampling layer and a row of blocks.
        row = network.get_submodule(last)
    else:
        last = stage
    blocks = [(f"{last}.{n}", block) for n, block in row.named_children()]
    if (
        not isinstance(row, nn.Sequential)
        or len({type(block) for _, block in blocks}) != 1
        or isinstance(blocks[0][1], nn.Sequential)  # a row of convolutions: MobileNet's stage is one block
        or blocks[-1][0] not in maps
        or maps[blocks[-1][0]].value != maps[stage].value
    ):
        return stage
    if _is_resnet50(network, stage, blocks):
        return blocks[2][0]
    return blocks[-1][0]


def _is_resnet50(network: nn.Module, stage: str, blocks: Sequence[tuple[str, nn.Module]]) -> bool:
    """Whether it is the paper's network: rows of 3, 4, 6 and 3 bottlenecks of plain width."""
    if stage != "layer2" or not hasattr(blocks[0][1], "conv3"):
        return False
    rows = [getattr(network, f"layer{i}", None) for i in (1, 2, 3, 4)]
    narrow = getattr(blocks[0][1], "conv2", None)
    return [len(row) if isinstance(row, nn.Sequential) else 0 for row in rows] == [3, 4, 6, 3] and (
        isinstance(narrow, nn.Conv2d) and (narrow.out_channels, narrow.groups) == (128, 1)
    )
