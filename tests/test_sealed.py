from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyborgs.sealed import sealed, unsealed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key != "checksum"), JSON))
def test_any_document_comes_back(value: dict[str, object]) -> None:
    assert unsealed(sealed(value)) == value


def test_equal_content_gives_equal_bytes() -> None:
    assert sealed({"b": (1, 2), "a": {10: 0, 9: 0}}) == sealed({"a": {"9": 0, "10": 0}, "b": [1, 2]})


def test_every_flipped_bit_is_noticed() -> None:
    """Those too that mean the same to JSON: 1e-05 is 1E-05, and the last digit of a float may not count."""
    data = sealed({"lr": 1e-05, "beta": 0.30000000000000004, "big": 2.0**60, "text": "aé\n", "none": None, "list": []})
    missed = []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            unsealed(bytes(changed))
        except ValueError:
            continue
        missed.append(changed)
    assert missed == []


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", r"no JSON \("),
        (b"\xff", r"no JSON \("),
        (b"[" * 100_000, r"no JSON \("),
        (b"[1]", "no JSON object"),
        (b'{"a": 1}', "it has no checksum"),
        (b'{"a": 1, "checksum": "0"}', "its checksum does not match"),
        (sealed({"a": 1}) + b"\n", "its checksum does not match"),
    ],
    ids=range(7),
)
def test_what_is_wrong_is_said(data: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        unsealed(data)


def test_the_seal_has_its_own_field() -> None:
    with pytest.raises(ValueError, match="checksum"):
        sealed({"checksum": 1})
    assert json.loads(sealed({"a": 1})).keys() == {"a", "checksum"}
