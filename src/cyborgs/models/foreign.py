"""Checkpoints of other people's code: which tensors in them are the backbone's, and of which network.

Their files wrap the weights in dictionaries and the backbone in other modules, so the same tensor is called::

    state_dict / module.encoder_q.conv1.weight                      MoCo
    state_dict / encoder_q.0.conv1.weight, backbone.conv1.weight    OpenSelfSup, DenseCL, ORL
    online_network.encoder.conv1.weight, online_encoder....         BYOL, DetCon in torch
    classy_state_dict / base_model / model / trunk / _feature_blocks.conv1.weight    VISSL
    model / visual.cnn.conv1.weight                                 VirTex, and the authors of CYBORGS
    teacher, student / module.backbone.conv1.weight                 DINO
    state_dict / module.encoder.conv1.weight                        SimSiam
    state_dict / backbone.conv1.weight, momentum_backbone....       solo-learn
    state_dict / backbone.0.weight, backbone.4.0.conv1.weight       lightly: the ResNet's children in a row

None of these is asked for by name: all dictionaries are joined to one, and the backbone is where, under one prefix,
most tensors have names and shapes of the network. Of several such branches the one that is trained by gradient (query,
online, student) comes before the one that follows it (key, target, teacher, momentum).
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from cyborgs.errors import UserError
from cyborgs.models.initial import is_safetensors, read_safetensors, read_torch

DEEPEST: Final = 8
"""Dictionaries in dictionaries that are looked into."""
FOLLOWERS: Final = frozenset({"k", "key", "target", "teacher", "momentum", "ema", "slow"})
"""Words in the name of a branch that follows another."""
ROW: Final = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
"""A ResNet's children in a row, as ``nn.Sequential(*children)`` numbers them."""
RESNETS: Final[Mapping[tuple[tuple[int, ...], int, int, int], str]] = {
    # blocks of the stages, convolutions a block, output and input channels (a group) of layer1.0's 3x3
    ((2, 2, 2, 2), 2, 64, 64): "resnet18",
    ((3, 4, 6, 3), 2, 64, 64): "resnet34",
    ((3, 4, 6, 3), 3, 64, 64): "resnet50",
    ((3, 4, 23, 3), 3, 64, 64): "resnet101",
    ((3, 8, 36, 3), 3, 64, 64): "resnet152",
    ((3, 4, 6, 3), 3, 128, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), 3, 128, 128): "wide_resnet101_2",
    ((3, 4, 6, 3), 3, 128, 4): "resnext50_32x4d",
    ((3, 4, 23, 3), 3, 256, 8): "resnext101_32x8d",
    ((3, 4, 23, 3), 3, 256, 4): "resnext101_64x4d",
}


@dataclass(frozen=True)
class Found:
    """A backbone in a checkpoint."""

    state: dict[str, Tensor]
    """Its tensors under the network's own names."""
    prefix: str
    """What stood before these names."""
    passed: Mapping[str, tuple[str, ...]]
    """All other tensors: what their names begin with -> the rest of each name."""

    @property
    def told(self) -> str:
        """All that was passed over, in one line; names of another branch, and names that differ in numbers, are joined."""
        groups = []
        for prefix, names in self.passed.items():
            twins = [name for name in names if name in self.state]
            alike = defaultdict(list)
            for name in names:
                if name not in self.state:
                    alike[re.sub(r"\d+", "N", name)].append(name)
            said = [f"{len(twins)} named as those taken"] if twins else []
            for pattern, some in alike.items():
                said += some if len(some) <= 3 else [f"{pattern} ({len(some)})"]
            groups.append(f"{prefix or '(no prefix)'}: {', '.join(said)}")
        return "; ".join(groups)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whatever dictionaries they lie in: names are the keys, joined by dots.

    ``argparse.Namespace``, which several codes keep beside the weights, is read and passed over; other classes are not.

    Raises:
        UserError: neither a safetensors nor a torch file of tensors and plain values, or no tensor in it.
    """
    if is_safetensors(path):
        return read_safetensors(path)[0]
    state = dict(_leaves(read_torch(path, [argparse.Namespace]), "", 0))
    if not state:
        raise UserError(f"{path}: does not hold named tensors")
    return state


def _leaves(value: Any, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, dict) and depth < DEEPEST:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key), depth + 1)


def architecture_of(state: Mapping[str, Tensor]) -> str | None:
    """Name of the ResNet of torchvision whose tensors are in ``state``, whatever their prefix; None: none is."""
    found: Counter[str] = Counter()
    places = [(n, re.match(r"(|.*\.)conv1\.weight$", n), False) for n in state]
    places += [(n, re.match(r"(|.*\.)0\.weight$", n), True) for n in state]
    for name, match, in_row in places:
        if match and state[name].dim() == 4 and state[name].shape[1] == 3:
            known = _resnet(state, match[1], in_row)
            if known:
                found[known] += 1
    return found.most_common(1)[0][0] if found else None


def _resnet(state: Mapping[str, Tensor], prefix: str, in_row: bool) -> str | None:
    blocks = []
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        place = prefix + (ROW[stage] if in_row else stage)
        count = 0
        while f"{place}.{count}.conv1.weight" in state:
            count += 1
        blocks.append(count)
    first = f"{prefix}{ROW['layer1'] if in_row else 'layer1'}.0"
    middle = state.get(f"{first}.conv2.weight")
    if middle is None or middle.dim() != 4:
        return None
    convolutions = 3 if f"{first}.conv3.weight" in state else 2
    return RESNETS.get((tuple(blocks), convolutions, middle.shape[0], middle.shape[1]))


def find_backbone(state: Mapping[str, Tensor], own: Mapping[str, Tensor], what: str, head: Sequence[str] = ()) -> Found:
    """The tensors of a network among those of a checkpoint.

    Args:
        state: of ``read_tensors``.
        own: the network's state dict, less its head.
        what: how an error's message begins: file and network.
        head: names of modules that the network once had; the checkpoint may hold tensors for them.

    Raises:
        UserError: a checkpoint with another architecture: names the first tensor that is missing, of another shape, or
            too many in a stage of the network.
    """
    rows = {_in_row(name): name for name in own}
    plans = [{name: name for name in own}]
    if len(rows) == len(own) and None not in rows:
        plans.append({str(theirs): name for theirs, name in rows.items()})
    best: tuple[int, int, int, str, dict[str, str]] | None = None
    branches: Counter[str] = Counter()
    for place, names in enumerate(plans):  # the checkpoint's name under a prefix -> our name
        counts = _matches(state, own, names)
        for prefix, count in counts.items():
            branches[prefix] = max(branches[prefix], count)
            rank = (count, -_follows(prefix), -place)
            if best is None or rank > best[:3] or (rank == best[:3] and len(prefix) < len(best[3])):
                best = (*rank, prefix, names)
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    if best is None or best[0] * 4 < len(needed):
        raise UserError(f"{what}: a checkpoint with another architecture: few of its {len(state)} tensors fit.")
    prefix, names = best[3], best[4]
    taken = {ours: prefix + theirs for theirs, ours in names.items() if prefix + theirs in state}
    _agree(state, own, taken, prefix, names, what, head)
    used = set(taken.values())
    others = [name for name in state if name not in used]
    known = [p for p, count in branches.items() if count * 2 > len(needed)]
    return Found(
        {ours: state[taken[ours]] if ours in taken else own[ours] for ours in own}, prefix, _grouped(others, known)
    )


def _in_row(name: str) -> str | None:
    child, _, rest = name.partition(".")
    return f"{ROW[child]}.{rest}" if child in ROW else None


def _matches(state: Mapping[str, Tensor], own: Mapping[str, Tensor], names: Mapping[str, str]) -> Counter[str]:
    """Prefix -> tensors under it with name and shape of the network's; counters of BatchNorm do not count."""
    counts: Counter[str] = Counter()
    for full, tensor in state.items():
        starts = [0] + [m.end() for m in re.finditer(r"\.", full)]
        for start in starts:
            ours = names.get(full[start:])
            if ours and not ours.endswith("num_batches_tracked") and own[ours].shape == tensor.shape:
                counts[full[:start]] += 1
    return counts


def _follows(prefix: str) -> bool:
    return not FOLLOWERS.isdisjoint(re.split(r"[._]", prefix.lower()))


def _agree(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    taken: Mapping[str, str],
    prefix: str,
    names: Mapping[str, str],
    what: str,
    head: Sequence[str],
) -> None:
    theirs = {ours: prefix + name for name, ours in names.items()}
    missing = [n for n in own if n not in taken and not n.endswith("num_batches_tracked")]
    other = [n for n in taken if state[taken[n]].shape != own[n].shape]
    stages = {name.partition(".")[0] for name in names}
    used = set(taken.values())
    more = sorted(
        n
        for n in state
        if n.startswith(prefix)
        and n not in used
        and n.removeprefix(prefix).partition(".")[0] in stages
        and not any(n.removeprefix(prefix).startswith(f"{part}.") for part in head)
    )
    if missing:
        said = f"{theirs[missing[0]]} is missing, the first of {len(missing)}"
    elif other:
        shapes = tuple(state[taken[other[0]]].shape), tuple(own[other[0]].shape)
        said = f"{taken[other[0]]} is {shapes[0]}, need {shapes[1]}, the first of {len(other)}"
    elif more:
        said = f"{more[0]} is too many, the first of {len(more)}"
    else:
        return
    raise UserError(f"{what}: a checkpoint with another architecture: tensor {said}.")


def _grouped(names: list[str], branches: list[str]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        holders = [p for p in branches if p and name.startswith(p)]
        start = max(holders, key=len) if holders else ".".join(name.split(".")[:2]) + "."
        start = start if name.startswith(start) and name != start else ""
        groups[start].append(name.removeprefix(start))
    return {start: tuple(sorted(groups[start])) for start in sorted(groups)}
