"""Dense CRF refinement of a label map (Kraehenbuehl and Koltun, NeurIPS 2011): Fig. 4 and Table 2b.

Mean field of a fully connected model, by ``pydensecrf2``: each pixel has a cost for each label, and labels are drawn
to those of pixels that lie near (smoothness) or near and alike in colour (appearance), with Potts' compatibility and
symmetrically normalised Gaussian kernels.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.errors import UserError
from cyborgs.masks.config import CrfConfig

UInt8 = NDArray[np.uint8]
LEAST: Final = 1e-5
"""Probabilities of the unary are clipped here."""

BUILD_BY_HAND: Final = (
    "; from Python 3.13 on: pip install 'cython>=3' setuptools wheel, then pip install --no-build-isolation pydensecrf2"
    if sys.version_info >= (3, 13)
    else ""
)
"""pydensecrf2 1.1 is built with Cython 0.29.36, whose code no compiler takes for Python 3.13; Cython 3 builds it."""


def require_crf() -> Any:
    """The library's module.

    Raises:
        UserError: it is not installed; names the extra.
    """
    try:
        import pydensecrf.densecrf as library
    except ImportError as error:
        raise UserError(
            "the dense CRF needs the extra crf: pip install 'cyborgs[crf]' (it is built from source: a C++ compiler is "
            f"needed, such as g++{BUILD_BY_HAND}). Importing pydensecrf: {error}."
        ) from error
    return library


def refine(image: UInt8, cosines: NDArray[np.floating[Any]], config: CrfConfig) -> UInt8:
    """The labels after refinement, uint8 (H, W).

    The unary is ``-log softmax(kappa * cosine)``, probabilities clipped at 1e-5. Only labels that are the nearest
    somewhere take part; a map of one label stays as it is.

    Args:
        image: uint8 (H, W, 3) RGB, or (H, W) grey.
        cosines: floats (K, H, W), K <= 256: of each pixel's feature with each prototype.
        config: kernels and steps.

    Raises:
        ValueError: sizes differ.
        UserError: the extra is missing.
    """
    if cosines.ndim != 3 or cosines.shape[1:] != image.shape[:2]:
        raise ValueError(f"the picture has {image.shape[:2]} pixels (height, width), the cosines are {cosines.shape}")
    present = np.unique(_nearest(cosines))
    if len(present) == 1:
        return np.full(image.shape[:2], present[0], np.uint8)
    refined: UInt8 = present[marginals(image, _costs(cosines, present, config.kappa), config).argmax(2)]
    return refined


def marginals(image: UInt8, costs: NDArray[np.floating[Any]], config: CrfConfig) -> NDArray[np.float32]:
    """Probability of each label at each pixel after mean field, float32 (H, W, K), for costs (K, H, W).

    The library keeps about eight times the memory of the costs, and Python's lock: threads do not help.
    """
    library = require_crf()
    count, height, width = costs.shape
    colours = np.ascontiguousarray(np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image)
    field = library.DenseCRF2D(width, height, count)
    field.setUnaryEnergy(np.ascontiguousarray(costs.reshape(count, -1), np.float32))
    del costs  # the library has a copy
    # The defaults of both are diagonal kernels, normalised symmetrically.
    if config.smoothness:
        field.addPairwiseGaussian(sxy=config.smoothness_position, compat=config.smoothness)
    if config.appearance:
        field.addPairwiseBilateral(
            sxy=config.appearance_position, srgb=config.appearance_colour, rgbim=colours, compat=config.appearance
        )
    # Its matrix lies label by label for each pixel, so this shape needs no copy.
    found: NDArray[np.float32] = np.asarray(field.inference(config.iterations)).T.reshape(height, width, count)
    return found


def _nearest(cosines: NDArray[np.floating[Any]]) -> UInt8:
    """The label of the largest cosine, uint8 (H, W), ties to the lowest; unlike ``argmax`` it needs no copy of them."""
    best = cosines[0].copy()
    nearest = np.zeros(best.shape, np.uint8)
    for label, plane in enumerate(cosines[1:], 1):
        nearest[plane > best] = label
        np.maximum(best, plane, out=best)
    return nearest


def _costs(cosines: NDArray[np.floating[Any]], present: UInt8, kappa: float) -> NDArray[np.float32]:
    """``-log softmax`` over the labels ``present``, float32 (len(present), H, W), made in place."""
    costs = np.empty((len(present), *cosines.shape[1:]), np.float32)
    for cost, label in zip(costs, present, strict=True):
        np.multiply(cosines[label], kappa, out=cost, casting="same_kind")
    costs -= costs.max(0)
    total = np.zeros(costs.shape[1:], np.float32)
    for cost in costs:
        total += np.exp(cost)
    np.subtract(np.log(total), costs, out=costs)
    return np.minimum(costs, np.float32(-np.log(LEAST)), out=costs)
