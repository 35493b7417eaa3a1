from __future__ import annotations

import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cyborgs.ops import batched_kmeans as module
from cyborgs.ops import euclidean_kmeans, spherical_kmeans
from cyborgs.ops.batched_kmeans import batched_kmeans
from tests.ops.test_kmeans import blobs, objective, unit
from tests.waits import waits

seeds = st.integers(0, 2**31)
quick = settings(deadline=None, max_examples=25)


def problems(seed: int, n: int) -> Tensor:
    return torch.stack([blobs(n, 5, seed + i) for i in range(3)])


@given(seeds, st.integers(4, 60), st.lists(st.integers(1, 4), min_size=3, max_size=3), st.booleans(), st.booleans())
@quick
def test_all_problems_at_once_are_each_by_itself(
    seed: int, n: int, k: list[int], spherical: bool, started: bool
) -> None:
    """The way of a GPU, on a CPU, against the form of one problem, which stops early, looks for its initial points one
    after another, and is tested by itself."""
    x = problems(seed, n)
    start = x[:, : max(k)] if started else None
    labels, centroids = batched_kmeans(x, k, [seed, 1, 2], start=start, spherical=spherical)
    together, same = module._run(x, k, [seed, 1, 2], 20, start, spherical)
    assert torch.equal(together, labels)
    torch.testing.assert_close(same, centroids, rtol=1e-9, atol=1e-9)
    for i, own in enumerate(k):
        assert not centroids[i, own:].any()


@given(seeds, st.integers(4, 60), st.lists(st.integers(1, 4), min_size=3, max_size=3), st.booleans(), st.booleans())
@quick
def test_on_a_cpu_each_problem_is_computed_by_itself(
    seed: int, n: int, k: list[int], spherical: bool, started: bool
) -> None:
    x = problems(seed, n)
    start = x[:, : max(k)] if started else None
    labels, centroids = batched_kmeans(x, k, [seed, 1, 2], iterations=7, start=start, spherical=spherical)
    single = spherical_kmeans if spherical else euclidean_kmeans
    for i, own in enumerate(k):
        first = None if start is None else start[i, :own]
        expected = single(x[i], own, seed=[seed, 1, 2][i], iterations=7, start=first)
        assert torch.equal(labels[i], expected[0])
        assert torch.equal(centroids[i, :own], expected[1])


@pytest.mark.parametrize("spherical", [True, False])
def test_iterations_that_move_no_label_change_no_bit(spherical: bool) -> None:
    """So that stopping early is not seen in the result."""
    x = problems(3, 60)
    few, many = (module._run(x, [4, 3, 2], [0, 1, 2], count, None, spherical) for count in (40, 60))
    assert torch.equal(few[0], many[0])
    assert torch.equal(few[1], many[1])


def test_empty_clusters_take_the_farthest_points() -> None:
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.01], [1.0, 0.02], [1.0, 0.5], [0.0, 1.0]]])
    start = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [-1.0, -0.1]]])
    labels, _ = batched_kmeans(x, [3], [0], start=start)
    assert labels.tolist() == [[0, 0, 0, 2, 1]]  # the farthest, for the first of the empty ones


def test_opposite_points_leave_their_centroid() -> None:
    x = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    _, centroids = batched_kmeans(x, [1], [0], start=torch.tensor([[[0.0, 2.0]]]))
    assert centroids.tolist() == [[[0.0, 1.0]]]


def test_few_distinct_directions_and_zero_rows() -> None:
    distinct = blobs(3, 5, 1)
    which = torch.arange(40) % 3
    x = torch.stack([distinct[which] * (1 + torch.arange(40)[:, None]), torch.zeros(40, 5).double(), blobs(40, 5, 2)])
    x[0, 5:9] = 0
    x[2, 1:] = 0
    labels, centroids = batched_kmeans(x, [7, 4, 3], [0, 1, 2])
    assert len(labels[0, which.new_tensor([0, 1, 2])].unique()) == 3
    rows = unit(distinct)[which]
    kept = torch.arange(40) < 5
    torch.testing.assert_close(centroids[0][labels[0]][kept], rows[kept])
    assert not labels[0, 5:9].any()
    assert not labels[1].any()
    assert not labels[2].any()
    lengths = centroids.norm(dim=2)
    wanted = torch.tensor([[1.0] * 7, [1.0] * 4 + [0.0] * 3, [1.0] * 3 + [0.0] * 4], dtype=torch.float64)
    torch.testing.assert_close(lengths, wanted)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_rows(scale: float) -> None:
    x = blobs(50, 5, 0, torch.float32)[None]
    labels, centroids = batched_kmeans(x, [6], [3])
    scaled, same = batched_kmeans(x * scale, [6], [3])
    assert torch.equal(labels, scaled)
    torch.testing.assert_close(centroids, same)


@pytest.mark.parametrize("may_read", [True, False])
def test_what_is_not_finite_shows(may_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "may_read", lambda x: may_read)
    x = torch.stack([blobs(30, 5, 0), blobs(30, 5, 1)])
    x[1, 7, 2] = torch.nan
    labels, centroids = batched_kmeans(x, [4, 4], [0, 1])
    assert centroids[0].isfinite().all()
    assert centroids[1].isnan().any()
    assert labels.min() >= 0
    assert labels.max() < 4


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = problems(1, 200)
    whole = module._run(x, [9, 3, 5], [2, 3, 4], 20, None, True)
    monkeypatch.setattr(module, "slices", lambda points, n, width: (slice(i, min(i + 37, n)) for i in range(0, n, 37)))
    sliced = module._run(x, [9, 3, 5], [2, 3, 4], 20, None, True)
    assert torch.equal(whole[0], sliced[0])
    torch.testing.assert_close(whole[1], sliced[1], rtol=1e-12, atol=1e-12)


def test_sums_of_all_problems() -> None:
    x, labels = problems(1, 90), torch.randint(9, (3, 90), generator=torch.Generator().manual_seed(0))
    counted = torch.rand(3, 90, generator=torch.Generator().manual_seed(1)) > 0.3
    x[~counted] = 0
    sums, counts = module._sums(x, labels, 9, counted)
    for i in range(3):
        for c in range(9):
            mine = counted[i] & (labels[i] == c)
            torch.testing.assert_close(sums[i, c], x[i][mine].sum(0))
            assert counts[i, c] == int(mine.sum())


def test_nothing_is_read_back_and_nothing_is_left_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "may_read", lambda x: False)  # the way of a GPU
    x = problems(1, 60).float().requires_grad_()
    with waits() as found, torch.autocast("cpu", dtype=torch.bfloat16):
        first = batched_kmeans(x, [9, 3, 5], [2, 3, 4])
    assert found == []
    assert not first[1].requires_grad
    assert first[1].dtype == torch.float32
    second = batched_kmeans(x, [9, 3, 5], [2, 3, 4])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_errors() -> None:
    x = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match="with S k and seeds"):
        batched_kmeans(x, [1], [0, 1])
    with pytest.raises(ValueError, match="1 <= k <= 3"):
        batched_kmeans(x, [1, 4], [0, 1])
    with pytest.raises(ValueError, match=r"start must be \(2, 2, 4\)"):
        batched_kmeans(x, [1, 2], [0, 1], start=torch.ones(2, 3, 4))


def test_objective_on_real_photos() -> None:
    """What is lost, 1 - cosine, is at most 0.1% more than with the single form: 3 slices of photos, a random network."""
    folder = os.environ.get("CYBORGS_TEST_DATA")
    if not folder or not (Path(folder) / "scenes_misc.tar").exists():
        pytest.skip("needs CYBORGS_TEST_DATA, a folder with scenes_misc.tar")
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    body = torch.nn.Sequential(*list(network.children())[:6])
    rows = []
    with tarfile.open(Path(folder) / "scenes_misc.tar") as tar:
        for member in tar:
            if len(rows) == 12:
                break
            if not member.name.lower().endswith((".jpg", ".jpeg", ".png")):
                continue
            content = tar.extractfile(member)
            assert content is not None
            photo = cv2.imdecode(np.frombuffer(content.read(), np.uint8), cv2.IMREAD_COLOR)
            if photo is None:
                continue
            pixels = torch.from_numpy(cv2.resize(photo, (224, 224), interpolation=cv2.INTER_AREA)).permute(2, 0, 1)
            with torch.no_grad():
                rows.append(body(pixels[None].float() / 128 - 1)[0].flatten(1).T)
    x = torch.stack(rows).reshape(3, -1, 128)
    k, drawn = [8, 37, 120], [5, 6, 7]
    labels, centroids = module._run(x, k, drawn, 20, None, True)
    ours = [objective(x[i], labels[i], centroids[i]) for i in range(3)]
    single = [objective(x[i], *spherical_kmeans(x[i], own, seed=drawn[i])) for i, own in enumerate(k)]
    assert np.mean(single) < 0.999  # not a point
    assert (1 - np.array(ours) <= 1.001 * (1 - np.array(single))).all(), (ours, single)
