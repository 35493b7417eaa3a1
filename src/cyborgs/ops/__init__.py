"""Pure functions of tensors."""

from cyborgs.ops.kmeans import euclidean_kmeans, spherical_kmeans
from cyborgs.ops.regions import region_pool, sample_regions
from cyborgs.ops.resample import pooling_matrix
from cyborgs.ops.resample import resample as resample
from cyborgs.ops.spectrum import effective_rank, unit_deviation

__all__ = [
    "effective_rank",
    "euclidean_kmeans",
    "pooling_matrix",
    "region_pool",
    "resample",
    "sample_regions",
    "spherical_kmeans",
    "unit_deviation",
]
