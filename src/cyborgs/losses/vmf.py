"""Loss 2: von Mises-Fisher clustering consistency (Eq. 3 and 4), and its Euclidean variant (Table 2f)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cyborgs.ops.normalise import at_least_float32, no_autocast, unit_rows
from cyborgs.structures import Geometries, ViewGeometry

EDGE = 1e-6
"""Points this near to the edge of a cell, in cells, lie on it."""


def vmf_distance(y: Tensor, assignment: Tensor, prototypes: Tensor, *, kappa: float = 10.0) -> Tensor:
    """Eq. 4: d(mu_a, y) = -log softmax_c(kappa mu_c . y)[a].

    ``y`` (N, D), ``assignment`` (N,) integers below K, ``prototypes`` (K, D) -> (N,) float32 (float64 where ``y``
    is). Both are normalised inside; a zero row gives log K without gradient.
    """
    with no_autocast(y):
        y = unit_rows(at_least_float32(y))
        mu = unit_rows(prototypes.to(y.dtype))
        return F.cross_entropy(y @ (kappa * mu).T, assignment.long(), reduction="none")


def euclidean_distance(y: Tensor, assignment: Tensor, prototypes: Tensor) -> Tensor:
    """Table 2f: |y - mu_a|^2, nothing normalised. Shapes and dtypes are those of ``vmf_distance``."""
    with no_autocast(y):
        y = at_least_float32(y)
        return (y - prototypes.to(y.dtype)[assignment.long()]).square().sum(dim=1)


def vmf_cluster_loss(
    y1: Tensor,
    y2: Tensor,
    assign1: Tensor,
    assign2: Tensor,
    prototypes1: Tensor,
    prototypes2: Tensor,
    geometry1: Geometries | Sequence[ViewGeometry],
    geometry2: Geometries | Sequence[ViewGeometry],
    *,
    kappa: float = 10.0,
    alignment: Literal["overlap", "none"] = "overlap",
    distance: Literal["vmf", "euclidean"] = "vmf",
) -> dict[str, Tensor]:
    """Eq. 3 for one slice: B images whose pixels were clustered together, one set of prototypes for each view.

        intra = mean over images and cells of   d(mu1[i,j], y1[i,j]) + d(mu2[i,j], y2[i,j])
        inter = mean over images and points of  d(mu2(p), y1(p)) + d(mu1(p), y2(p))
        total = intra + inter

    ``y`` (B, D, h, w): online maps of both views; ``assign`` (B, h, w): the cluster of each cell, of the target's
    maps; ``prototypes`` (K, D), without gradient, K may differ between the views; ``geometry``: of a batch, or a
    sequence of B. The points p are the centres of an h x w grid over the overlap of an image's two crops:
    y(p) is read bilinearly, and normalised after that; mu(p) is the prototype of the nearest cell of the other
    view. An image whose crops overlap by less than one cell of either view, in height or width, adds 0 to inter.

    ``alignment="none"``: inter is 0. ``distance="euclidean"``: d is the squared distance of Table 2f.
    Returns scalars ``intra``, ``inter``, ``total``, float32 (float64 where ``y1`` is).
    Raises ValueError where shapes do not fit or a setting is unknown.
    """
    if y1.ndim != 4 or y1.shape != y2.shape or any(a.shape != (len(y1), *y1.shape[2:]) for a in (assign1, assign2)):
        raise ValueError(
            f"vmf_cluster_loss: maps must be (B, D, h, w) and assignments (B, h, w), got {tuple(y1.shape)}, "
            f"{tuple(y2.shape)}, {tuple(assign1.shape)}, {tuple(assign2.shape)}"
        )
    if alignment not in ("overlap", "none"):
        raise ValueError(f"alignment: need 'overlap' or 'none', got {alignment!r}")
    if distance not in ("vmf", "euclidean"):
        raise ValueError(f"distance: need 'vmf' or 'euclidean', got {distance!r}")

    prototypes1, prototypes2 = prototypes1.detach(), prototypes2.detach()

    def d(y: Tensor, assign: Tensor, prototypes: Tensor) -> Tensor:
        rows, own = y.flatten(0, 2), assign.flatten()
        if distance == "euclidean":
            return euclidean_distance(rows, own, prototypes)
        return vmf_distance(rows, own, prototypes, kappa=kappa)

    with no_autocast(y1):
        # Channels last: interpolation acts on whole rows of channels, and pixels are rows of a matrix.
        maps1, maps2 = (at_least_float32(y).permute(0, 2, 3, 1) for y in (y1, y2))
        intra = d(maps1, assign1, prototypes1).mean() + d(maps2, assign2, prototypes2).mean()
        if alignment == "none":
            return {"intra": intra, "inter": torch.zeros_like(intra), "total": intra}
        b, h, w = assign1.shape
        box1, box2 = _tensors(geometry1, b, y1.device), _tensors(geometry2, b, y1.device)
        rows1, columns1, rows2, columns2, usable = overlap_points(box1, box2, h, w)
        there1 = _nearest(assign1, rows1, columns1)
        there2 = _nearest(assign2, rows2, columns2)
        across1 = d(_read(maps1, rows1, columns1), there2, prototypes2)
        across2 = d(_read(maps2, rows2, columns2), there1, prototypes1)
        points = (across1 + across2).view(b, h * w)
        inter = torch.where(usable.unsqueeze(1), points, 0).mean()
        return {"intra": intra, "inter": inter, "total": intra + inter}


def overlap_points(box1: Geometries, box2: Geometries, h: int, w: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centres of an h x w grid over the overlap of two crops, in the cells of either view's h x w map.

    B geometries of either view -> rows1 (B, h), columns1 (B, w), rows2, columns2, float64: position t lies in cell
    floor(t), whose centre is floor(t) + 0.5. And usable (B,) bool: whether the overlap is at least a cell of each
    view high and wide; positions of the other images mean nothing.
    """
    top, bottom = torch.maximum(box1.y0, box2.y0), torch.minimum(box1.y0 + box1.h, box2.y0 + box2.h)
    left, right = torch.maximum(box1.x0, box2.x0), torch.minimum(box1.x0 + box1.w, box2.x0 + box2.w)
    # Products, not quotients: an overlap of exactly one cell must not depend on rounding.
    usable = (bottom - top) * h >= torch.maximum(box1.h, box2.h)
    usable &= (right - left) * w >= torch.maximum(box1.w, box2.w)

    def centres(low: Tensor, high: Tensor, n: int) -> Tensor:
        steps = (torch.arange(n, device=low.device, dtype=torch.float64) + 0.5) / n
        return low.unsqueeze(1) + (high - low).unsqueeze(1) * steps

    y, x = centres(top, bottom, h), centres(left, right, w)

    def within(box: Geometries) -> tuple[Tensor, Tensor]:
        rows = (y - box.y0.unsqueeze(1)) * (h / box.h.unsqueeze(1))
        columns = (x - box.x0.unsqueeze(1)) * (w / box.w.unsqueeze(1))
        # A mirrored view counts its columns from the right edge of its crop.
        return rows, torch.where(box.flip.unsqueeze(1), w - columns, columns)

    return *within(box1), *within(box2), usable


def _tensors(geometry: Geometries | Sequence[ViewGeometry], b: int, device: torch.device) -> Geometries:
    geometries = geometry if isinstance(geometry, Geometries) else ViewGeometry.stack(geometry)
    if len(geometries) != b:
        raise ValueError(f"vmf_cluster_loss: {len(geometries)} geometries for {b} images")
    return geometries.to(device)


def _nearest(assign: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``assign`` (B, h, w) at rows (B, p) x columns (B, q), each read from the cell in which it lies -> (B, p, q)."""
    # A point on the edge of two cells belongs to the later one, however its position was rounded.
    i = (rows + EDGE).floor().long().clamp(0, assign.shape[1] - 1)
    j = (columns + EDGE).floor().long().clamp(0, assign.shape[2] - 1)
    image = torch.arange(len(assign), device=assign.device)
    return assign[image[:, None, None], i[:, :, None], j[:, None, :]]


def _weights(positions: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Bilinear weights (B, p, n): half-pixel centres, edges clamped."""
    centres = (positions - 0.5).clamp(0, n - 1).unsqueeze(2)
    cells = torch.arange(n, device=positions.device, dtype=positions.dtype)
    return (1 - (cells - centres).abs()).clamp(min=0).to(dtype)


def _read(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A_h maps A_w^T: ``maps`` (B, h, w, D) at rows (B, p) x columns (B, q), bilinearly -> (B, p, q, D)."""
    b, h, w, channels = maps.shape
    tall = torch.bmm(_weights(rows, h, maps.dtype), maps.reshape(b, h, w * channels)).view(b, -1, w, channels)
    return _weights(columns, w, maps.dtype).unsqueeze(1) @ tall
