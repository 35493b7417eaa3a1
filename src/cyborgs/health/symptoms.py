"""From figures to sicknesses: pure functions, and the sentences that people read."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cyborgs.health.config import HealthConfig
from cyborgs.structures import EpochPlan

WINDOW: Final = 4
"""Readings that are averaged to see whether loss 2 falls."""
JUDGED_AFTER: Final = 8
"""Readings of a phase before loss 2 is judged."""
FALLS: Final = 0.98
"""Loss 2 falls where it is below this share of what it was."""
CHANCE: Final = 1.8
"""Intra over log K of pixels that are nearly all alike: log K for each of two views."""
NOTHING_LEFT: Final = 0.2
"""Intra over log K that has no need to fall further."""
AT_PROTOTYPES: Final = 0.98
"""Mean cosine of pixels and their prototypes from which on nothing else is left of them."""
FALLEN: Final = 0.1
"""Effective rank of embeddings, as a share of the highest so far, under which most of their dimensions are lost."""
EVENNESS: Final = 0.1
"""Mean normalised entropy of an image's labels, under which one label is nearly all of it."""
USED: Final = 0.5
"""Share of a group's K clusters that are used, under which features are nearly all alike."""
NORMS: Final = 25
"""Gradient norms of which the median is taken."""
FLOOR: Final = 1e-9
"""A gradient below it is next to nothing, whatever it was before."""


@dataclass(frozen=True)
class Reading:
    """What one figure says about one sickness."""

    name: str
    """The sickness, a field of ``HealthConfig``."""
    figure: str
    value: float
    sick: bool | None
    """None: neither sick nor clearly healthy, so that nothing flickers."""


@dataclass
class Memory:
    """What the judgement of later figures needs of earlier ones; all of it goes into the checkpoint."""

    norms: dict[str, list[float]] = field(default_factory=dict)
    """The last gradient norms, by the losses that made them."""
    ranks: dict[str, float] = field(default_factory=dict)
    """The highest effective ranks of embeddings so far."""
    phase: str = ""
    first: list[float] = field(default_factory=list)
    """The first readings of loss 2 in this phase."""
    recent: list[float] = field(default_factory=list)
    """Its last ones."""
    seen: int = 0


@dataclass(frozen=True)
class Circumstances:
    """What the figures are judged by beside the settings."""

    peak_rate: float
    bootstrapped: bool
    """Whether the masks are the network's own: others are as they were asked for."""
    one_region: bool = False
    """Whether one region an image was asked for."""


def below(value: float, limit: float, margin: float = 1.25) -> bool | None:
    """Whether it is too low; False only from ``margin`` times the limit on."""
    return True if value < limit else False if value >= margin * limit else None


def above(value: float, limit: float, margin: float = 0.8) -> bool | None:
    """Whether it is too high; False only down from ``margin`` times the limit."""
    return True if value > limit else False if value <= margin * limit else None


def read_step(
    numbers: Mapping[str, float], plan: EpochPlan, config: HealthConfig, known: Circumstances, memory: Memory
) -> Iterator[Reading]:
    """What the numbers of a logged step say; a figure that is absent says nothing. ``memory`` takes them in."""
    for figure in ("embed/std_online", "embed/std_target"):
        if figure in numbers:
            yield Reading("collapsed_embeddings", figure, numbers[figure], below(numbers[figure], config.min_deviation))
    for figure in ("embed/rank_online", "embed/rank_target"):
        if figure in numbers:
            rank = numbers[figure]
            memory.ranks[figure] = max(rank, memory.ranks.get(figure, 0.0))
            limit = max(config.min_rank, FALLEN * memory.ranks[figure])
            yield Reading("collapsed_embeddings", figure, rank, below(rank, limit))
    if "batchnorm/dead" in numbers:
        share = numbers["batchnorm/dead"]
        yield Reading("dead_batchnorm", "batchnorm/dead", share, above(share, config.max_dead_share))
    if "gradient/norm" in numbers:
        yield from _gradients(numbers["gradient/norm"], plan, config, memory)
    if "update/ratio" in numbers:
        ratio, (low, high) = numbers["update/ratio"], config.update_ratio
        sick = above(ratio, high)
        if numbers["lr"] >= known.peak_rate / 2 and sick is False:
            sick = below(ratio, low)
        yield Reading("learning_rate", "update/ratio", ratio, sick)
    if "contrast/regions" in numbers and not known.one_region:
        regions = numbers["contrast/regions"]
        yield Reading("few_regions", "contrast/regions", regions, below(regions, config.min_regions))
    if "contrast/matched_share" in numbers:
        share = numbers["contrast/matched_share"]
        yield Reading("few_matches", "contrast/matched_share", share, below(share, config.min_matched))
    if "cluster/intra_over_log_k" in numbers:
        yield from _clusters(numbers, plan, config, memory)


def _gradients(norm: float, plan: EpochPlan, config: HealthConfig, memory: Memory) -> Iterator[Reading]:
    # Other losses have gradients of another size: each combination is compared with itself.
    before = memory.norms.setdefault("+".join(sorted(plan.losses)), [])
    low, high = False, False
    factor, vanished, exploded = config.gradient_factor, norm < FLOOR, None
    if len(before) >= JUDGED_AFTER:
        median = statistics.median(before)
        low, high = norm < median / factor, norm > median * factor
        vanished, exploded = vanished or low, high
    # What is out of line is not taken in: it would become the rule.
    if not (low or high or vanished):
        before.append(norm)
        del before[:-NORMS]
    yield Reading("vanishing_gradients", "gradient/norm", norm, vanished)
    yield Reading("exploding_gradients", "gradient/norm", norm, exploded)


def _clusters(numbers: Mapping[str, float], plan: EpochPlan, config: HealthConfig, memory: Memory) -> Iterator[Reading]:
    intra = numbers["cluster/intra_over_log_k"]
    if plan.phase != memory.phase:  # another K, another weight: another beginning
        memory.phase, memory.first, memory.recent, memory.seen = plan.phase, [], [], 0
    memory.first = [*memory.first, intra][:WINDOW]
    memory.recent = [*memory.recent, intra][-WINDOW:]
    memory.seen += 1
    start, now = statistics.mean(memory.first), statistics.mean(memory.recent)
    stalled: bool | None = len(memory.recent) == WINDOW and now > CHANCE
    # In the warm-up it is all that is learned; later it may rest where it fell to.
    if not stalled and plan.phase == "warm-up" and memory.seen >= JUDGED_AFTER and now > NOTHING_LEFT:
        stalled = above(now, FALLS * start, 0.97)
    yield Reading("stalled_clustering", "cluster/intra_over_log_k", intra, stalled)
    if "cluster/rank" in numbers:
        rank, k = numbers["cluster/rank"], numbers["cluster/k"]
        share = numbers["cluster/largest_share"]
        giant = above(share, config.max_cluster_share, 0.97)
        yield Reading("giant_cluster", "cluster/largest_share", share, giant)
        near = rank <= 1.05 * k and numbers["cluster/own_cosine"] >= AT_PROTOTYPES
        # Pixels that are nearly all in one cluster are near their prototypes and of low rank too: that is said already.
        yield Reading("collapsed_features", "cluster/rank", rank, near and not giant)


def read_masks(figures: Mapping[str, float], config: HealthConfig, known: Circumstances) -> Iterator[Reading]:
    """What the figures of a generation of masks say; those of fixed masks say nothing."""
    if not known.bootstrapped:
        return
    share = figures["masks/one_label_share"]
    yield Reading("collapsed_masks", "masks/one_label_share", share, above(share, config.max_one_label_share))
    evenness = figures["masks/entropy"]
    yield Reading("collapsed_masks", "masks/entropy", evenness, below(evenness, EVENNESS))
    if "masks/used_clusters" in figures:
        used = figures["masks/used_clusters"]
        yield Reading("collapsed_masks", "masks/used_clusters", used, below(used, USED))
    if "masks/stability" in figures:
        stability = figures["masks/stability"]
        yield Reading("unstable_masks", "masks/stability", stability, below(stability, config.min_stability))
