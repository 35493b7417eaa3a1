"""Hundreds of odd and damaged pictures: read as a viewer shows them, or refused with a reason; never in part."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cyborgs.data.decode import UnreadableImage, decode
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.errors import printable
from tests.data.corpus import SUFFIX, Case, corpus, viewer

# Pillow warns of odd metadata and of large pictures; a warning that is an error would refuse them.
pytestmark = pytest.mark.filterwarnings("ignore")
HARMS = ("none", "wrong extension", "orientation", "cut", "cut and mended", "flipped bits", "wrong length", "huge size")
HARMS += ("bomb",)
NONE = {("GIF", "orientation"), ("BMP", "orientation"), ("BMP", "cut and mended"), ("WEBP", "bomb"), ("BMP", "bomb")}
PAIRS = [(kind, harm) for kind in SUFFIX for harm in HARMS if (kind, harm) not in NONE]


@cache
def cases() -> tuple[Case, ...]:
    return tuple(corpus())


def test_the_corpus_is_what_it_should_be() -> None:
    assert len(cases()) >= 300
    assert len({case.name for case in cases()}) == len(cases())
    assert {(case.kind, case.harm) for case in cases()} == set(PAIRS)
    digest = [hashlib.sha256(case.data).digest() for case in cases()]
    assert digest == [hashlib.sha256(case.data).digest() for case in corpus(0)]  # from the seed alone


def decoded(case: Case) -> np.ndarray | str:
    """The pixels, or the reason why there are none; within five seconds."""
    start = time.process_time()
    try:
        return decode(case.data, case.name)
    except UnreadableImage as error:
        return error.reason
    finally:
        assert time.process_time() - start < 5, f"{case.name} took too long"


def reason(case: Case) -> str | None:
    """Decode and compare; the reason why it was refused, None where it was read."""
    found = decoded(case)
    if isinstance(found, str):
        assert case.fate != "whole", f"{case.name} is a picture, but: {found}"
        assert found
        assert found == printable(found)
        return found
    assert case.fate not in ("refused", "bomb"), f"{case.name} was read"
    expected = viewer(case.data) if case.pixels is None else case.pixels
    assert found.shape == expected.shape, case.name
    assert np.abs(found.astype(np.int16) - expected).max() <= max(case.levels, 1), f"{case.name} shows something else"
    return None


@pytest.mark.parametrize(("kind", "harm"), PAIRS)
def test_as_a_viewer_shows_it_or_refused(kind: str, harm: str) -> None:
    chosen = [case for case in cases() if (case.kind, case.harm) == (kind, harm)]
    reasons = [reason(case) for case in chosen]
    refused = sum(r is not None for r in reasons)
    if harm in ("cut", "flipped bits"):
        assert refused >= len(chosen) / 10  # a decoder that refuses nothing is broken


def test_bombs_are_refused_from_the_header() -> None:
    bombs = [case for case in cases() if case.fate == "bomb"]
    assert len(bombs) >= 8
    for case in bombs:
        decode_reason = reason(case)  # once to load what is loaded at first use
        assert decode_reason is not None
        assert "pixels" in decode_reason, f"{case.name}: {decode_reason}"
        times = []
        for _ in range(3):
            start = time.process_time()
            reason(case)
            times.append(time.process_time() - start)
        assert min(times) < 0.3, f"{case.name}: {min(times):.3f} s"


CHILD = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
from cyborgs.data.decode import UnreadableImage, decode
from tests.data.corpus import corpus
cases = corpus()
decode(next(case.data for case in cases if case.fate == "whole"), "first")
open("/proc/self/clear_refs", "w").write("5")  # the peak from here on: making the corpus takes memory too
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
before, slowest = peak(), 0.0
for case in cases:
    start = time.process_time()
    try:
        decode(case.data, case.name)
    except UnreadableImage:
        pass
    slowest = max(slowest, time.process_time() - start)
print(json.dumps({"megabytes": peak() - before, "slowest": slowest, "seen": len(cases)}))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc/self/clear_refs")
def test_one_process_survives_them_all_in_little_memory() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["seen"] == len(cases())
    assert found["megabytes"] < 1024
    assert found["slowest"] < 5


def test_a_scan_loses_none_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for case in cases():
        (folder / case.name).write_bytes(case.data)
    found = scan(list_images(folder), use_cache=False)
    usable, skipped = {name for name, *_ in found.images}, dict(found.skipped)
    assert len(found.images) + len(found.skipped) == len(cases())
    assert usable | set(skipped) == {case.name for case in cases()}
    assert all(skipped.values())
    assert not [text for text in skipped.values() if re.search("0x[0-9a-f]{6}", text)]  # no address: it is a result
    for case in cases():
        if case.fate == "whole":
            assert case.name in usable
        elif case.fate in ("refused", "bomb"):
            assert case.name in skipped
    assert Counter(case.fate for case in cases() if case.name in usable)["whole"] > 50
    assert found == scan(list_images(folder), use_cache=False, workers=1)
