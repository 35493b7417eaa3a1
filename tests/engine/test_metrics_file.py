from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyborgs.engine.metrics_file import MetricsFile
from cyborgs.errors import UserError


def test_lines_after_the_checkpoint_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 1, "loss": 0.5})
    assert json.loads(path.read_text()) == {"step": 1, "loss": 0.5}  # seen at once: a report may be made meanwhile
    length = file.flush()
    file.write({"step": 2})
    file.close()
    assert len(path.read_text().splitlines()) == 2
    file = MetricsFile(path, length)
    file.write({"step": 2})
    assert file.flush() == path.stat().st_size
    file.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_lost_lines_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    with pytest.raises(
        UserError, match=r"metrics\.jsonl: holds 12 bytes, it had 100 at the checkpoint: lines are lost"
    ):
        MetricsFile(path, 100)
    assert path.read_text() == '{"step": 1}\n'
    path.unlink()  # what the message offers
    file = MetricsFile(path, 100)
    file.write({"step": 9})
    assert file.flush() == 12
    file.close()
    assert path.read_text() == '{"step": 9}\n'
