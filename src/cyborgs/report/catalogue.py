"""What the figures of a run are called on the page, and what they tell."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

MONITORS: Final = "Monitors"
GROUPS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Losses": {
        "loss": ("Total loss", "What is minimised: each loss times its weight."),
        "loss/contrast": (
            "Contrast loss (loss 1)",
            "The same region in two views against all other regions of the batch; it should fall, then level off.",
        ),
        "loss/cluster": (
            "Cluster loss (loss 2)",
            "How well clusters of one view predict those of the other; K differs from step to step, so it jumps.",
        ),
        "loss/byol": ("BYOL loss", "Distance between one view's prediction and the other's embedding: 0 is perfect."),
    },
    "Learning rate and gradient": {
        "lr": ("Learning rate", "The schedule, warm-up included."),
        "gradient/norm": (
            "Gradient norm",
            "Length of the whole gradient: near 0 nothing is learned, jumps are trouble.",
        ),
    },
    "Embeddings": {
        "embed/std_online": (
            "Spread of embeddings, online",
            "Standard deviation of region embeddings, mean over dimensions: near 0 means collapse.",
        ),
        "embed/rank_online": (
            "Effective rank of embeddings, online",
            "How many directions the embeddings really use: 1 means collapse.",
        ),
        "embed/std_target": ("Spread of embeddings, target", "The same for the target network."),
        "embed/rank_target": ("Effective rank of embeddings, target", "The same for the target network."),
    },
    "Regions that are contrasted (loss 1)": {
        "contrast/regions": ("Regions in a view", "Regions sampled per view, mean: few regions teach little."),
        "contrast/matched": (
            "Regions found in both views",
            "Share of sampled regions that have a partner in the other view: only these are pulled together.",
        ),
        "contrast/matched_mean": ("Matched regions per photo", "Regions of a photo that both of its views hold, mean."),
    },
    "Clusters of loss 2": {
        "cluster/intra_over_log_k": (
            "Loss within a view over log K",
            "Comparable between different K: 1 is as bad as a guess among K clusters.",
        ),
        "cluster/inter_over_log_k": ("Loss between views over log K", "The same, predicted from the other view."),
        "cluster/rank": (
            "Effective rank of clustered features",
            "Directions that the features use: near 1 all are alike.",
        ),
        "cluster/perplexity_over_k": (
            "Share of clusters in use",
            "Perplexity of the cluster sizes over K: 1 is equal sizes, near 0 one cluster has all.",
        ),
        "cluster/largest_share": ("Largest cluster", "Share of pixels in the largest cluster: near 1 means collapse."),
        "cluster/pixel_cosine": ("Likeness of pixels", "Mean cosine between pixels' features: near 1 all look alike."),
        "cluster/top_label_share": ("Commonest label", "Share of pixels with the commonest label."),
    },
    "Masks, at each generation": {
        "masks/used_clusters": ("Clusters in use", "Share or number of clusters that any pixel belongs to."),
        "masks/entropy": ("Entropy of the labels", "Evenness of the regions' sizes: 0 means one label has all."),
        "masks/one_label_share": (
            "Photos with one label",
            "Share of photos that are a single region: they teach nothing.",
        ),
        "masks/regions": ("Regions in a photo", "Labels in a photo, mean."),
        "masks/stability": (
            "Stability",
            "How much the masks agree with the generation before: low at first, rising as the network settles.",
        ),
    },
    MONITORS: {
        "knn/top1": (
            "Accuracy of the nearest photos' vote",
            "Share of the labelled test photos (or half of all) whose class the 20 nearest of the others tell.",
        ),
        "knn/commonest_class": (
            "For comparison: always the commonest class",
            "What a guess without looking would get.",
        ),
        "probe/miou": (
            "Linear segmentation probe: mIoU",
            "A 1x1 convolution on frozen maps, trained on half of the labelled photos, judged on the others.",
        ),
        "probe/accuracy": ("Linear segmentation probe: accuracy", "Share of pixels that are right."),
        "neighbours/similarity": (
            "Likeness of nearest regions",
            "Mean cosine of a region with the nearest in other photos.",
        ),
        "neighbours/similarity_any": (
            "Likeness of any two regions",
            "Mean cosine of regions of different photos: at the nearest regions' level, all looks alike.",
        ),
    },
    "Speed": {"images_per_second": ("Photos a second", "How fast training went, smoothed; pauses for masks left out.")},
}
OTHER: Final = "Other figures"
MOST: Final = 56
"""Curves of a page, at most: it must open from a mail."""


def known() -> dict[str, tuple[str, str, str]]:
    """Name of a figure -> (group, title, explanation)."""
    return {name: (group, title, note) for group, figures in GROUPS.items() for name, (title, note) in figures.items()}


def grouped(names: Iterable[str], monitored: Collection[str] = ()) -> list[tuple[str, list[str]]]:
    """The figures by group, in the page's order; those that nobody described come last, by name.

    Of these, the ``monitored`` are figures of protocols, whose names the page cannot know: they join the monitors'.
    """
    given = list(dict.fromkeys(names))
    described = known()
    groups = [(group, [n for n in figures if n in given]) for group, figures in GROUPS.items()]
    more = [n for n in given if n not in described]
    groups = [(g, [*f, *(n for n in more if g == MONITORS and n in monitored)]) for g, f in groups]
    groups.append((OTHER, sorted(n for n in more if n not in monitored)))
    return [(group, figures) for group, figures in groups if figures]


def title_of(name: str) -> tuple[str, str]:
    """Title and explanation of a figure."""
    _, title, note = known().get(name, ("", name.replace("_", " "), ""))
    return title, note
