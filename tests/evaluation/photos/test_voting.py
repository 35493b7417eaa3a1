"""The weighted vote against scikit-learn, lightly, and a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightly.utils.benchmarking import knn_predict
from sklearn.neighbors import KNeighborsClassifier

from cyborgs.evaluation.photos import voting
from cyborgs.evaluation.photos.voting import nearest_rows, votes
from cyborgs.ops.normalise import unit_rows


def vote(bank: torch.Tensor, labels: object, queries: torch.Tensor, classes: int, *, k: int = 20) -> np.ndarray:
    """The class of each query, at DINO's temperature; ties go to the lowest class."""
    near, order = nearest_rows(bank, queries, min(k, len(bank)))
    voters = torch.as_tensor(np.asarray(labels, np.int64))[order]
    return votes(near, voters, classes, 0.07).argmax(dim=1).numpy()


def sample(n: int = 60, queries: int = 25) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(4, 8, generator=generator)
    labels = torch.randint(0, 4, (n,), generator=generator)
    bank = unit_rows(centres[labels] + 1.5 * torch.randn(n, 8, generator=generator))
    other = unit_rows(centres[torch.arange(queries) % 4] + 1.5 * torch.randn(queries, 8, generator=generator))
    return bank, labels.numpy(), other


@pytest.mark.parametrize("k", [1, 7, 20, 200])
def test_as_scikit_learn(k: int) -> None:
    bank, labels, queries = sample()
    # The squared distance of unit vectors is 2 - 2 cos.
    oracle = KNeighborsClassifier(min(k, 60), weights=lambda d: np.exp((1 - d**2 / 2) / 0.07), algorithm="brute")
    oracle.fit(bank.double().numpy(), labels)
    assert vote(bank, labels, queries, 4, k=k).tolist() == oracle.predict(queries.double().numpy()).tolist()


@pytest.mark.parametrize("k", [1, 5, 20])
def test_as_lightly(k: int) -> None:
    bank, labels, queries = sample(200, 90)
    wanted = knn_predict(queries, bank.T, torch.from_numpy(labels), 4, k, 0.07)[:, 0]
    assert vote(bank, labels, queries, 4, k=k).tolist() == wanted.tolist()


def test_as_a_loop_with_ties() -> None:
    bank = torch.eye(3)[[0, 1, 2, 0]]
    labels = [2, 1, 0, 1]
    queries = unit_rows(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    for k in (1, 2, 4):
        expected = []
        for query in queries.double():
            order = sorted(range(4), key=lambda i: (-float(query @ bank[i].double()), i))[:k]
            weights = [0.0] * 3
            for i in order:
                weights[labels[i]] += math.exp(float(query @ bank[i].double()) / 0.07)
            expected.append(int(np.argmax(weights)))
        assert vote(bank, labels, queries, 3, k=k).tolist() == expected


def test_many_equal_rows_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties go by the order of the bank, in pieces of one query too."""
    generator = torch.Generator().manual_seed(0)
    few = unit_rows(torch.randn(5, 4, generator=generator))
    bank = few[torch.randint(0, 5, (70,), generator=generator)]
    queries = unit_rows(torch.randn(13, 4, generator=generator))
    similar = queries.double() @ bank.double().T
    for k in (1, 9, 70):
        order = np.argsort(-similar.numpy(), axis=1, kind="stable")[:, :k]
        for room in (1, 1 << 20):
            monkeypatch.setattr(voting, "ROOM", room)
            near, found = nearest_rows(bank, queries, k)
            assert np.array_equal(found.numpy(), order)
            assert torch.allclose(near, similar.gather(1, found), atol=1e-12)


def test_nobody_asks() -> None:
    near, order = nearest_rows(torch.eye(3), torch.zeros(0, 3), 2)
    assert near.shape == order.shape == (0, 2)
    assert vote(torch.eye(3), [0, 1, 2], torch.zeros(0, 3), 3).shape == (0,)


def test_small_temperatures_do_not_overflow() -> None:
    found = votes(torch.tensor([[1.0, 0.9]], dtype=torch.float64), torch.tensor([[1, 0]]), 2, 1e-4)
    assert torch.isfinite(found).all()
    assert found.argmax() == 1
