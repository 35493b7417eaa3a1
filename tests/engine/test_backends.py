"""Each backend against what it really leaves on this machine."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.cli import main
from cyborgs.engine.backends import open_backend
from cyborgs.engine.callback import Callback
from cyborgs.engine.contract import Stopped
from cyborgs.engine.log import RunLog
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.runs.pretrain import pretrain
from tests.conftest import tiny_byol


class StopAtTwo(Callback):
    def on_step(self, trainer: Trainer) -> None:
        if trainer.progress.step == 2:
            trainer.stop()


def run_with(logger: str, photos: Path, out: Path) -> list[dict[str, float]]:
    """A run of 4 steps, stopped after 2 and resumed; the lines of its metrics.jsonl."""
    recipe = replace(tiny_byol(epochs=2), logger=logger)
    with pytest.raises(Stopped):
        pretrain(recipe, data=photos, out=out, callbacks=(StopAtTwo(),), stream=io.StringIO())
    run = pretrain(recipe, data=photos, out=out, resume=True, stream=io.StringIO())
    return [line for line in run.metrics if "loss" in line]


def test_tensorboard(photos: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = run_with("tensorboard", photos, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = [(e.step, e.value) for e in events.Scalars("loss/byol")]
    assert [step for step, _ in shown] == [1, 2, 3, 4]
    assert [value for _, value in shown] == pytest.approx([line["loss/byol"] for line in lines])


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of an offline file: LevelDB's log format after a head of 7 bytes, blocks of 32 KiB."""
    block, at, whole = 32768, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, last part
            yield whole
            whole = b""


def test_wandb_offline(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    lines = run_with("wandb", photos, tmp_path / "run")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2  # one a start
    shown: list[tuple[int, float]] = []
    ids, configs = set(), []
    for file in files:
        for data in wandb_records(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
                configs.append({item.key: item.value_json for item in record.run.config.update})
            if record.HasField("history"):
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                shown.append((items["_step"], items["loss/byol"]))
    assert [step for step, _ in shown] == [1, 2, 3, 4]
    assert [value for _, value in shown] == pytest.approx([line["loss/byol"] for line in lines])
    assert len(ids) == 1  # the same run, before and after
    assert json.loads(configs[0]["epochs"]) == 2


def test_mlflow_in_sqlite(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    lines = run_with("mlflow", photos, tmp_path / "run")
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cyborgs")
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "loss/byol")
    assert [metric.step for metric in history] == [1, 2, 3, 4]
    assert [metric.value for metric in history] == pytest.approx([line["loss/byol"] for line in lines])
    assert found.data.params["optimizer.kind"] == "lars"
    assert found.info.status == "FINISHED"


def test_none_leaves_the_file_alone(photos: Path, tmp_path: Path) -> None:
    assert len(run_with("none", photos, tmp_path / "run")) == 4
    assert not {"tensorboard", "wandb", "mlflow.db"} & {f.name for f in (tmp_path / "run").iterdir()}


def test_the_backend_changes_no_result(photos: Path, tmp_path: Path) -> None:
    for name in ("none", "tensorboard"):
        run_with(name, photos, tmp_path / name)
    first, second = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in ("none", "tensorboard"))
    assert first == second


@pytest.mark.parametrize(("name", "module"), [("wandb", "wandb"), ("mlflow", "mlflow.tracking")])
def test_a_missing_extra_is_named(
    name: str, module: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    words = ["pretrain", "small-byol", "--data", str(photos), "--out", str(tmp_path / "run"), "--logger", name]
    assert main([*words, "--batch-size", "8", "--backbone.name", "timm:test_resnet"]) == 1
    assert f"pip install 'cyborgs[{name}]'" in capsys.readouterr().err


def test_a_backend_that_cannot_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(UserError, match=r"logger: mlflow cannot be started .*nonsense"):
        open_backend("mlflow", tmp_path, 0, {})


def test_a_failing_backend_ends_its_records_not_the_run(tmp_path: Path) -> None:
    class Gone:
        calls = 0

        def write(self, values: Mapping[str, float], step: int) -> None:
            self.calls += 1
            raise ConnectionError("the service went away")

        def close(self) -> None:
            raise AssertionError("it was dropped before")

    stream, backend = io.StringIO(), Gone()
    with RunLog(tmp_path, backend=backend, stream=stream) as log:
        log.write({"step": 1, "loss": 2.0})
        log.write({"step": 2, "loss": 1.0})
    assert backend.calls == 1
    assert stream.getvalue().count("Gone failed (the service went away)") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
