from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyborgs.segmenting.json_file import write_list, write_object


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    name = b"caf\xe9\n".decode("utf-8", "surrogateescape")
    write_object(
        tmp_path / "o.json", {"info": {"a": 1}}, {"one": iter([]), "two": ({"n": n, "name": name} for n in range(3))}
    )
    found = json.loads((tmp_path / "o.json").read_text("ascii"))
    assert found == {"info": {"a": 1}, "one": [], "two": [{"n": n, "name": name} for n in range(3)]}
    assert list(found) == ["info", "one", "two"]
    write_object(tmp_path / "l.json", {}, {"x": [1]})
    assert json.loads((tmp_path / "l.json").read_text()) == {"x": [1]}
    write_list(tmp_path / "e.json", iter(()))
    assert json.loads((tmp_path / "e.json").read_text()) == []


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    write_list(path, [1])

    def broken():
        yield 1
        raise KeyError("gone")

    with pytest.raises(KeyError):
        write_list(path, broken())
    assert json.loads(path.read_text()) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["o.json"]


def test_items_are_taken_one_at_a_time(tmp_path: Path) -> None:
    import tracemalloc

    text = "x" * 10_000
    tracemalloc.start()
    write_list(tmp_path / "large.json", ([n, text] for n in range(5_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "large.json").stat().st_size > 50_000_000
    assert peak < 5_000_000
