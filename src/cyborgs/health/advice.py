"""What is said to people about a sick run: what it is, what it usually means, what to do."""

from __future__ import annotations

from typing import Final, NamedTuple


class Advice(NamedTuple):
    """The sentence of one sickness, in parts."""

    what: str
    means: str
    do: str


WORDS: Final[dict[str, Advice]] = {
    "not_finite": Advice(
        "A loss or gradient is not finite",
        "The weights are about to be spoilt, or are already",
        "start a new run with a lower --optimizer.lr or a longer warm-up, or in --precision 32-true",
    ),
    "collapsed_embeddings": Advice(
        "The embeddings have collapsed: the network gives nearly the same vector for everything",
        "Usually the rate is too high, the target moves too fast, or the photos hardly differ",
        "look whether the photos are as you expect; try a lower --optimizer.lr, or a target that moves more slowly where the method has one",
    ),
    "collapsed_masks": Advice(
        "The bootstrapped masks hold hardly any regions",
        "Usually the clustered features tell no pixels apart any more, or the photos are flat",
        "look at the masks in the report; try a longer warm-up (--method.warmup-steps) or more --method.clusters",
    ),
    "unstable_masks": Advice(
        "The new masks have nothing to do with those before them",
        "Usually the clustered features changed altogether in between: the rate is too high, or too few steps lie between",
        "try a lower --optimizer.lr, or masks at longer intervals (--method.refresh-steps)",
    ),
    "dead_batchnorm": Advice(
        "Many channels of BatchNorm always say the same",
        "Usually the photos are flat, or too high a rate pushed the channels out of use",
        "look whether the photos are as you expect; try a lower --optimizer.lr or a longer warm-up",
    ),
    "vanishing_gradients": Advice(
        "The gradient has vanished",
        "Nothing is learned: usually all outputs are the same, or the loss has nothing left to tell apart",
        "look at the embeddings' figures (embed/...) and the masks; start a new run with a lower --optimizer.lr",
    ),
    "exploding_gradients": Advice(
        "The gradient has exploded",
        "Usually the rate is too high, and numbers that are not finite come next",
        "start a new run with a lower --optimizer.lr or a longer warm-up",
    ),
    "learning_rate": Advice(
        "A step changes the weights out of all proportion",
        "About a thousandth of their norm is common; much more forgets what was learned, much less learns nothing",
        "change --optimizer.lr by the factor that is missing (mind that it is meant for a batch of --optimizer.lr-batch)",
    ),
    "starved_loader": Advice(
        "Much of the time goes by waiting for photos",
        "Decoding and augmenting are slower than the network, or the disk is",
        "raise --workers up to the number of cores, store the photos smaller, or move them to a faster disk",
    ),
    "few_regions": Advice(
        "Views hold too few regions to tell apart",
        "Usually the masks have few labels, or the view's grid is too coarse to keep small ones",
        "try more --method.clusters, a finer --views.grid, or look at the masks in the report",
    ),
    "few_matches": Advice(
        "Few regions are found in the other view of their photo",
        "Usually regions are much smaller than the crops' overlap, so that the contrastive loss has few positives",
        "try fewer --method.clusters or larger crops (views.crops.area)",
    ),
    "stalled_clustering": Advice(
        "Loss 2 over log K does not fall",
        "Usually the rate is too low for the length of the warm-up, or the features tell no pixels apart "
        "(2.0: all are alike)",
        "try a higher --optimizer.lr, a longer warm-up (--method.warmup-steps), and look whether the photos are flat",
    ),
    "collapsed_features": Advice(
        "Nothing is left of the clustered features but their K prototypes: their effective rank is near K",
        "Loss 2 can be made small that way, and masks then never get finer",
        "shorten the warm-up (--method.warmup-steps), or raise --method.warmup-clusters",
    ),
    "giant_cluster": Advice(
        "One cluster holds nearly all pixels",
        "Usually a few odd pixels (frames, text, flat borders) take all other clusters",
        "look at the photos with one colour over most of them; try other --method.clusters",
    ),
}
"""By the names of ``HealthConfig``'s fields."""


def sentence(name: str, figure: str, value: float, since: int) -> str:
    """What is said where a sickness begins: figure and value, the step it was first seen at, meaning, advice."""
    words = WORDS[name]
    do = words.do[0].upper() + words.do[1:]
    return f"{words.what} (since step {since}: {figure} is {value:.3g}). {words.means}. {do}."


def over(name: str, figure: str, value: float, step: int) -> str:
    """What is said where it is over."""
    return f"Over at step {step}: {WORDS[name].what[0].lower()}{WORDS[name].what[1:]} ({figure} is {value:.3g} now)."
