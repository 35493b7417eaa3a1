"""Random numbers by coordinates: (seed, epoch, sample), (seed, epoch, step, slice), (seed, cycle, group).

Each purpose has a stream of its own, so that equal coordinates in two purposes are not correlated.
Rank and worker enter nowhere, hence a run does not depend on how many there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import torch

STREAMS: Final = {
    "order": 1,  # (seed, epoch): the order of the images in an epoch
    "sample": 2,  # (seed, epoch, sample): crops, colours, order of labels
    "step": 3,  # (seed, epoch, step): stochastic layers
    "slice": 4,  # (seed, epoch, step, slice): K and initial centroids of loss 2
    "groups": 5,  # (seed, cycle): which images are clustered together
    "group": 6,  # (seed, cycle, group): K and initial centroids of bootstrapping
    "weights": 7,  # (seed,): initial weights
    "scenes": 8,  # (seed, scene): the demo's scenes
    "evaluation": 9,  # (seed, ...): probes and clusterings
}


def derive(seed: int, stream: str, *coordinates: int) -> int:
    """A 63-bit integer that depends on all arguments, the same on every machine."""
    sequence = np.random.SeedSequence([seed, STREAMS[stream], *coordinates])
    low, high = (int(word) for word in sequence.generate_state(2, np.uint32))
    return (high & 0x7FFFFFFF) << 32 | low


def numpy_generator(seed: int, stream: str, *coordinates: int) -> np.random.Generator:
    """A numpy generator for these coordinates."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, STREAMS[stream], *coordinates])))


def torch_generator(seed: int, stream: str, *coordinates: int) -> torch.Generator:
    """A CPU torch generator for these coordinates."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(derive(seed, stream, *coordinates))
    return generator
