"""One backbone through one protocol, kept on disk: the unit of comparisons and of curves, which go on where they stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from cyborgs.evaluation.contract import Context, Data
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.protocols.catalogue import Settings
from cyborgs.files import make_folder, write_bytes
from cyborgs.metrics.figures import plain
from cyborgs.metrics.intervals import weights
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import weights_hash
from cyborgs.sealed import sealed, unsealed


@dataclass(frozen=True)
class Cell:
    """What a protocol measured of a backbone with one seed and one share of the labels."""

    metric: str
    value: float
    """The main figure, a share from 0 to 1."""
    figures: Mapping[str, float]
    drawn: tuple[float, ...]
    """The main figure on each draw of the test images: the same draws for all cells of the same test images."""
    images: int
    """Test images."""
    counts: Mapping[str, int]
    per_class: Mapping[str, float]
    warnings: tuple[str, ...]
    settings: Mapping[str, Any]
    """As the protocol used them: what it chose (a cost, a rate), what followed from the data."""
    seconds: float
    """Wall time; of the first time where the cell was found on disk."""
    found: bool = False
    """It was on disk already."""

    @property
    def draws(self) -> NDArray[np.float64]:
        """``drawn`` as an array."""
        return np.array(self.drawn, np.float64)


def measure(
    name: str,
    backbone: Backbone,
    data: Data,
    settings: Settings,
    context: Context,
    *,
    draws: int,
    store: Path | None = None,
) -> Cell:
    """Judge ``backbone`` by protocol ``name``, or read what was measured before.

    Args:
        name: of the protocol.
        backbone: left as it was.
        data: what the protocol's ``open_data`` gave.
        settings: of the protocol.
        context: seed and share of the cell; where ``out`` is set, trainings go into a folder of the cell's own below it.
        draws: of the test images, from seed 0 in every cell, so that cells are compared on equal draws.
        store: folder that keeps cells, a JSON each; None: nothing is kept.

    Raises:
        UserError: the input is at fault.
    """
    identity = {
        "cyborgs": version("cyborgs"),
        "protocol": name,
        "weights": weights_hash(backbone),
        "data": data.fingerprint,
        "settings": asdict(settings),
        "seed": context.seed,
        "share": context.share,
        "draws": draws,
    }
    key = xxhash.xxh64_hexdigest(json.dumps(identity, sort_keys=True).encode())
    file = None if store is None else store / f"{key}.json"
    if file is not None and (kept := _read(file)) is not None:
        return kept
    started = time.perf_counter()
    own = context if context.out is None else replace(context, out=context.out / key)
    result = protocols.module(name).evaluate(backbone, data, settings, own)
    judged = result.judged
    drawn = tuple(float(judged.score(w)) for w in weights(len(judged), draws, 0))
    cell = Cell(
        metric=result.metric,
        value=result.value,
        figures=dict(result.figures),
        drawn=drawn,
        images=len(judged),
        counts=dict(result.counts),
        per_class=dict(result.per_class),
        warnings=result.warnings,
        settings=dict(result.settings),
        seconds=time.perf_counter() - started,
    )
    if file is not None:
        make_folder(file.parent, parents=True)
        write_bytes(file, sealed({"identity": identity, "cell": plain(asdict(cell))}))
    return cell


def _read(file: Path) -> Cell | None:
    """A cell that is on disk whole; None: it must be measured."""
    try:
        value = unsealed(file.read_bytes())["cell"]
        fields: dict[str, Any] = _numbers(value)
        return Cell(**{**fields, "drawn": tuple(fields["drawn"]), "warnings": tuple(fields["warnings"]), "found": True})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def chosen(cell: Cell, settings: Settings) -> dict[str, Any]:
    """Of the settings that were used, those that differ from what was asked for, or say more."""
    asked = json.loads(json.dumps(asdict(settings)))
    used = json.loads(json.dumps(plain(cell.settings)))
    return {name: value for name, value in used.items() if name not in asked or asked[name] != value}


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return float("nan") if value is None else value
