from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from cyborgs.features.extraction import batches, join, layer_maps, stream_maps
from cyborgs.features.threads import Hands, ahead
from tests.features.fakes import FakeBackbone, MemoryPhotos, blocks


def photos(*cells: tuple[int, int]) -> MemoryPhotos:
    rng = np.random.default_rng(0)
    return MemoryPhotos([blocks(rng, cells=c)[0] for c in cells])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ahead_keeps_the_order_and_a_bound(threads):
    begun = 0
    lock = threading.Lock()

    def double(x):
        nonlocal begun
        with lock:
            begun += 1
        return 2 * x

    for done, x in enumerate(ahead(double, range(50), threads), 1):
        assert x == 2 * (done - 1)
        assert begun <= done + 2 * threads + 1


def test_large_photos_wait_one_at_a_time():
    begun = []
    for done, _ in enumerate(ahead(begun.append, range(9), 3, lambda i: 8_000_000), 1):
        assert len(begun) <= done + 1
    assert begun == list(range(9))
    running, most = 0, 0
    lock = threading.Lock()

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    with Hands(3) as hands:
        for _ in range(9):
            hands.do(8_000_000, work)
    assert most == 1


def test_ahead_passes_errors_on():
    def fail(x):
        if x == 3:
            raise KeyError(x)
        return x

    with pytest.raises(KeyError, match="3"):
        list(ahead(fail, range(9), 2))


@pytest.mark.parametrize("threads", [0, 2])
def test_hands_do_everything_and_pass_errors_on(threads):
    done = []
    with Hands(threads) as hands:
        for i in range(30):
            hands.do(1, done.append, i)
    assert sorted(done) == list(range(30))
    with pytest.raises(ZeroDivisionError), Hands(threads) as hands:
        hands.do(1, divmod, 1, 0)


def test_batches_are_of_equal_size_and_bounded(monkeypatch):
    monkeypatch.setattr("cyborgs.features.extraction.CALL_PIXELS", {"cpu": 2 * 96 * 128, "cuda": 10**9})
    some = photos((6, 8), (6, 8), (6, 8), (4, 6), (4, 6), (6, 8))
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [list(b) for b in batches(some, 0, cpu)] == [[0, 1], [2], [3, 4], [5]]
    assert [list(b) for b in batches(some, 48, cpu)] == [[0, 1, 2], [3, 4], [5]]
    assert [list(b) for b in batches(some, 0, cuda)] == [[0, 1, 2], [3, 4], [5]]
    assert batches(photos(), 0, cpu) == []


@pytest.mark.parametrize("threads", [0, 2])
def test_maps_come_in_order_and_only_those_that_are_wanted(threads):
    some = photos((6, 8), (6, 8), (4, 6), (6, 8))
    backbone, layers = FakeBackbone(), ["layer2", "layer3"]
    found = list(stream_maps(backbone, some, layers, wanted=lambda i: i != 2, threads=threads))
    assert [i for i, _, _ in found] == [0, 1, 3]
    for i, image, joined in found:
        assert np.array_equal(image, some.read(i))
        maps = layer_maps(backbone, [some.read(i)], layers)
        assert torch.allclose(joined, join([maps[name][0] for name in layers]), atol=1e-6)


def test_what_is_missing_does_not_change_the_rest(monkeypatch):
    monkeypatch.setattr("cyborgs.features.extraction.CALL_PIXELS", {"cpu": 10**9, "cuda": 10**9})
    some = photos(*[(6, 8)] * 4)
    everything = {i: m for i, _, m in stream_maps(FakeBackbone(), some, ["layer2"])}
    (found,) = stream_maps(FakeBackbone(), some, ["layer2"], wanted=lambda i: i == 2)
    assert found[0] == 2
    assert torch.equal(found[2], everything[2])


def test_broken_weights_name_the_photo():
    backbone = FakeBackbone()
    with torch.no_grad():
        backbone.project[0][0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"p0\.jpg: layer2 holds NaN"):
        list(stream_maps(backbone, photos((4, 4)), ["layer2"]))
