from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cyborgs.losses import vmf_cluster_loss, vmf_distance
from cyborgs.structures import ViewGeometry


def box(y0: int, x0: int, h: int, w: int, flip: bool = False) -> ViewGeometry:
    return ViewGeometry(y0, x0, h, w, flip, 100, 120)


def slow_d(y: np.ndarray, a: int, mu: np.ndarray, kappa: float, distance: str) -> float:
    if distance == "euclidean":
        return float(((y - mu[a]) ** 2).sum())
    y = y / np.linalg.norm(y)
    logits = [kappa * float(y @ m) / float(np.linalg.norm(m)) for m in mu]
    return math.log(sum(math.exp(x) for x in logits)) - logits[a]


def read(image: np.ndarray, t: float, s: float) -> np.ndarray:
    """(D, h, w) at position (t, s) in cells: half-pixel centres, clamped edges."""
    _, h, w = image.shape
    t, s = min(max(t - 0.5, 0), h - 1), min(max(s - 0.5, 0), w - 1)
    i, j = min(int(t), max(h - 2, 0)), min(int(s), max(w - 2, 0))
    i1, j1 = min(i + 1, h - 1), min(j + 1, w - 1)
    p, q = t - i, s - j
    upper = (1 - q) * image[:, i, j] + q * image[:, i, j1]
    lower = (1 - q) * image[:, i1, j] + q * image[:, i1, j1]
    return (1 - p) * upper + p * lower


def slow_loss(
    ys: list[np.ndarray],
    assigns: list[np.ndarray],
    mus: list[np.ndarray],
    geometries: list[list[ViewGeometry]],
    kappa: float = 10.0,
    distance: str = "vmf",
) -> tuple[float, float]:
    """docs/method.md's loss 2 in plain loops: intra and inter."""
    b, _, h, w = ys[0].shape
    intra = inter = 0.0
    for n in range(b):
        for v in (0, 1):
            for i, j in np.ndindex(h, w):
                intra += slow_d(ys[v][n, :, i, j], assigns[v][n, i, j], mus[v], kappa, distance)
        g1, g2 = geometries[0][n], geometries[1][n]
        top, bottom = max(g1.y0, g2.y0), min(g1.y0 + g1.h, g2.y0 + g2.h)
        left, right = max(g1.x0, g2.x0), min(g1.x0 + g1.w, g2.x0 + g2.w)
        if any((bottom - top) * h < g.h or (right - left) * w < g.w for g in (g1, g2)):
            continue
        for i, j in np.ndindex(h, w):
            # Exactly, since points do fall on the edges of cells.
            y = top + Fraction(2 * i + 1, 2 * h) * (bottom - top)
            x = left + Fraction(2 * j + 1, 2 * w) * (right - left)
            place = []
            for g in (g1, g2):
                s = (x - g.x0) / g.w * w
                place.append(((y - g.y0) / g.h * h, w - s if g.flip else s))
            for v in (0, 1):
                there = assigns[1 - v][n, min(int(place[1 - v][0]), h - 1), min(int(place[1 - v][1]), w - 1)]
                inter += slow_d(read(ys[v][n], *map(float, place[v])), there, mus[1 - v], kappa, distance)
    return intra / (b * h * w), inter / (b * h * w)


class Case:
    def __init__(self, seed: int, b: int = 3, d: int = 5, h: int = 4, w: int = 4, ks: tuple[int, int] = (3, 6)) -> None:
        rng = np.random.default_rng(seed)
        self.ys = [rng.normal(size=(b, d, h, w)) for _ in range(2)]
        self.assigns = [rng.integers(0, k, size=(b, h, w)) for k in ks]
        self.mus = [rng.normal(size=(k, d)) for k in ks]
        self.geometries = [
            [
                box(
                    int(rng.integers(0, 30)),
                    int(rng.integers(0, 30)),
                    int(rng.integers(20, 50)),
                    int(rng.integers(20, 60)),
                    bool(rng.integers(2)),
                )
                for _ in range(b)
            ]
            for _ in range(2)
        ]

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[object, ...]:
        return (
            *(torch.tensor(y, dtype=dtype, requires_grad=True) for y in self.ys),
            *(torch.tensor(a) for a in self.assigns),
            *(torch.tensor(m, dtype=dtype) for m in self.mus),
            *self.geometries,
        )


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(["vmf", "euclidean"]),
    st.sampled_from([1.0, 10.0, 30.0]),
)
@settings(deadline=None, max_examples=50)
def test_equals_plain_loops(seed: int, h: int, w: int, distance: str, kappa: float) -> None:
    case = Case(seed, h=h, w=w)
    intra, inter = slow_loss(case.ys, case.assigns, case.mus, case.geometries, kappa, distance)
    result = vmf_cluster_loss(*case.tensors(), kappa=kappa, distance=distance)  # type: ignore[arg-type]
    assert result["intra"].item() == pytest.approx(intra, rel=1e-9)
    assert result["inter"].item() == pytest.approx(inter, rel=1e-9)
    assert result["total"].item() == pytest.approx(intra + inter, rel=1e-9)


def test_the_cases_reach_every_branch() -> None:
    """Overlaps and none, flips of one view and both: the oracle would be blind otherwise."""
    pairs = [pair for seed in range(30) for pair in zip(*Case(seed).geometries, strict=True)]
    apart = [p for p in pairs if slow_loss(*_single(p))[1] == 0]
    assert 5 < len(apart) < len(pairs) - 40
    assert {(a.flip, b.flip) for a, b in pairs if (a, b) not in apart} == {(x, y) for x in (0, 1) for y in (0, 1)}


def _single(pair: tuple[ViewGeometry, ViewGeometry]) -> tuple[list[np.ndarray], ...]:
    case = Case(0, b=1)
    return case.ys, case.assigns, case.mus, [[pair[0]], [pair[1]]]  # type: ignore[return-value]


@pytest.mark.parametrize("distance", ["vmf", "euclidean"])
def test_finite_differences(distance: str) -> None:
    case = Case(3, b=2, d=3, h=3, w=3)
    case.geometries = [[box(0, 0, 30, 30), box(0, 0, 20, 20)], [box(7, 5, 21, 33, True), box(50, 50, 20, 20)]]
    y1, y2, *rest = case.tensors()

    def total(a: Tensor, b: Tensor) -> Tensor:
        return vmf_cluster_loss(a, b, *rest, distance=distance)["total"]  # type: ignore[arg-type]

    assert isinstance(y1, Tensor)
    assert torch.autograd.gradcheck(total, (y1, y2))


@pytest.mark.parametrize(("flip1", "flip2"), [(False, False), (True, False), (False, True), (True, True)])
def test_two_crops_of_one_label_image_align_exactly(flip1: bool, flip2: bool) -> None:
    """A pixel of the image is a cell of either view; features are one-hot labels, so agreement costs nothing."""
    k, side, cell = 5, 12, 8
    scene = np.random.default_rng(0).integers(0, k, size=(20, 22))

    def crop(i: int, j: int, flip: bool) -> tuple[Tensor, Tensor, ViewGeometry]:
        labels = scene[i : i + side, j : j + side]
        labels = torch.tensor(np.ascontiguousarray(labels[:, ::-1] if flip else labels))[None]
        y = torch.nn.functional.one_hot(labels, k).permute(0, 3, 1, 2).double()
        return y, labels, box(i * cell, j * cell, side * cell, side * cell, flip)

    y1, a1, g1 = crop(1, 2, flip1)
    y2, a2, g2 = crop(1, 2, flip2)
    mu = torch.eye(k, dtype=torch.float64)
    same = vmf_cluster_loss(y1, y2, a1, a2, mu, mu, [g1], [g2], kappa=200)
    assert same["inter"].item() == pytest.approx(0, abs=1e-9)

    # An overlap of half the side: two points in each cell; a quarter cell off the centre, the label is still right.
    y2, a2, g2 = crop(7, 8, flip2)
    shifted = vmf_cluster_loss(y1, y2, a1, a2, mu, mu, [g1], [g2], kappa=200)
    assert shifted["inter"].item() == pytest.approx(0, abs=1e-9)
    for wrong in (g2._replace(flip=not flip2), g2._replace(y0=g2.y0 + 3 * cell), g2._replace(x0=g2.x0 - 3 * cell)):
        assert vmf_cluster_loss(y1, y2, a1, a2, mu, mu, [g1], [wrong], kappa=200)["inter"].item() > 10


def test_overlap_of_exactly_one_cell_counts_and_less_does_not() -> None:
    case = Case(1, b=1)
    base = box(0, 0, 40, 40)

    def inter(other: ViewGeometry) -> float:
        case.geometries = [[base], [other]]
        return vmf_cluster_loss(*case.tensors())["inter"].item()  # type: ignore[arg-type]

    assert inter(box(30, 30, 40, 40)) > 0
    assert inter(box(31, 30, 40, 40)) == 0
    assert inter(box(30, 31, 40, 40)) == 0
    assert inter(box(30, 0, 44, 40)) == 0  # a cell of this view, less than a cell of the other
    assert inter(box(60, 60, 20, 20)) == 0


def test_no_overlap_adds_zero_and_no_gradient() -> None:
    case = Case(2)
    case.geometries = [[box(0, 0, 20, 20)] * 3, [box(60, 60, 20, 20)] * 3]
    y1, y2, *rest = case.tensors()
    assert isinstance(y1, Tensor)
    result = vmf_cluster_loss(y1, y2, *rest)  # type: ignore[arg-type]
    assert result["inter"].item() == 0
    (gradient,) = torch.autograd.grad(result["inter"], y1)
    assert not gradient.any()


@pytest.mark.parametrize("k", [2, 8, 256])
def test_all_pixels_equal_give_log_k_and_no_gradient(k: int) -> None:
    pixel = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = pixel.view(1, 5, 1, 1).repeat(2, 1, 3, 3).requires_grad_()
    assign = torch.zeros(2, 3, 3, dtype=torch.int64)
    views = [box(0, 0, 30, 30), box(0, 0, 30, 30)]
    mu = pixel.repeat(k, 1)
    result = vmf_cluster_loss(y, y, assign, assign, mu, mu, views, views)
    assert result["intra"].item() == pytest.approx(2 * math.log(k))
    assert result["inter"].item() == pytest.approx(2 * math.log(k))
    (gradient,) = torch.autograd.grad(result["total"], y)
    assert gradient.abs().max() < 1e-12


def test_well_separated_clusters_cost_nothing_at_large_kappa() -> None:
    y = 3 * torch.eye(6)
    a = torch.arange(6)
    assert vmf_distance(y, a, torch.eye(6), kappa=100).max() < 1e-6
    # And at kappa 10, the value of the formula: log(1 + 5 exp(-10)).
    assert vmf_distance(y, a, 7 * torch.eye(6)).tolist() == pytest.approx([math.log1p(5 * math.exp(-10))] * 6, abs=1e-6)
    assert vmf_distance(y, (a + 1) % 6, torch.eye(6)).min() > 9.9


def test_zero_pixels_have_no_gradient() -> None:
    y = torch.zeros(3, 4, requires_grad=True)
    distance = vmf_distance(y, torch.zeros(3, dtype=torch.int64), torch.randn(5, 4))
    assert distance.tolist() == pytest.approx([math.log(5)] * 3)
    (gradient,) = torch.autograd.grad(distance.sum(), y)
    assert not gradient.any()


def test_settings_change_what_they_say() -> None:
    case = Case(4)
    case.geometries = [[box(0, 0, 30, 30)] * 3, [box(5, 5, 30, 30)] * 3]
    loss = partial(vmf_cluster_loss, *case.tensors())  # type: ignore[arg-type]
    plain, unaligned = loss(), loss(alignment="none")
    assert plain["inter"] > 0
    assert unaligned["inter"] == 0
    assert unaligned["total"] == unaligned["intra"] == plain["intra"]
    assert loss(kappa=3.0)["intra"] != plain["intra"]
    assert loss(distance="euclidean")["total"] != plain["total"]
    with pytest.raises(ValueError, match="alignment"):
        loss(alignment="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="distance"):
        loss(distance="cosine")  # type: ignore[arg-type]


def test_forms_of_geometry_and_of_assignments() -> None:
    case = Case(5)
    y1, y2, a1, a2, mu1, mu2, g1, g2 = case.tensors()
    expected = vmf_cluster_loss(y1, y2, a1, a2, mu1, mu2, g1, g2)  # type: ignore[arg-type]
    stacked = [ViewGeometry.stack(g) for g in case.geometries]
    bytes1, bytes2 = (torch.tensor(a, dtype=torch.uint8) for a in case.assigns)
    again = vmf_cluster_loss(y1, y2, bytes1, bytes2, mu1, mu2, *stacked)  # type: ignore[arg-type]
    assert all(again[name] == expected[name] for name in expected)
    with pytest.raises(ValueError, match="2 geometries for 3 images"):
        vmf_cluster_loss(y1, y2, a1, a2, mu1, mu2, g1[:2], g2)  # type: ignore[arg-type,index]
    with pytest.raises(ValueError, match="assignments"):
        vmf_cluster_loss(y1, y2, a1[:2], a2, mu1, mu2, g1, g2)  # type: ignore[arg-type,index]


def test_autocast_is_left_and_prototypes_get_no_gradient() -> None:
    case = Case(6)
    y1, y2, a1, a2, mu1, mu2, g1, g2 = case.tensors(torch.float32)
    assert isinstance(mu1, Tensor)
    mu1.requires_grad_()
    expected = vmf_cluster_loss(y1, y2, a1, a2, mu1, mu2, g1, g2)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = vmf_cluster_loss(y1, y2, a1, a2, mu1, mu2, g1, g2)  # type: ignore[arg-type]
    assert all(result[name].item() == expected[name].item() for name in expected)
    result["total"].backward()
    assert mu1.grad is None
