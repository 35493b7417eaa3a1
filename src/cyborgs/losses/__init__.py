"""Losses: Eq. 2 (``mask_contrastive``), Eq. 3 and 4 (``vmf``), BYOL's."""

from cyborgs.losses.byol import byol_loss
from cyborgs.losses.mask_contrastive import mask_contrastive_loss, mask_contrastive_terms
from cyborgs.losses.vmf import euclidean_distance, overlap_points, vmf_cluster_loss, vmf_distance

__all__ = [
    "byol_loss",
    "euclidean_distance",
    "mask_contrastive_loss",
    "mask_contrastive_terms",
    "overlap_points",
    "vmf_cluster_loss",
    "vmf_distance",
]
