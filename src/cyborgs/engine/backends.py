"""Where figures go beside metrics.jsonl: TensorBoard, Weights & Biases or MLflow, all on this machine by default.

None of them can end a run: ``RunLog`` drops one that fails, and says so. Their records may hold the steps after a
checkpoint twice when a killed run goes on; metrics.jsonl does not.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, final
from uuid import uuid4

from cyborgs.errors import UserError
from cyborgs.files import write_bytes


class Backend(Protocol):
    """Takes numbers by name and step."""

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Figures of one step."""

    def close(self) -> None:
        """Bring everything to its place."""


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"logger: {extra!r} needs packages that are not installed ({error}). "
            f"Install them with: pip install 'cyborgs[{extra}]', or choose --logger tensorboard or none."
        ) from error


@final
class TensorBoard:
    """Event files in ``tensorboard/``; a resumed run hides the events after its checkpoint."""

    def __init__(self, folder: Path, step: int, recipe: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """A scalar each."""
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._events.close()


@final
class Wandb:
    """Weights & Biases, project ``cyborgs`` (WANDB_PROJECT), offline in ``wandb/`` unless WANDB_MODE says otherwise.

    Offline records are sent by hand: ``wandb sync RUN/wandb/offline-run-*``. A resumed run has the same id.
    """

    def __init__(self, folder: Path, step: int, recipe: Mapping[str, Any]) -> None:
        # Errors would be reported to the company otherwise, even offline.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = _module("wandb", "wandb")
        settings = wandb.Settings(console="off", save_code=False, disable_git=True, silent=True, x_disable_stats=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cyborgs"),
            name=folder.resolve().name,
            dir=str(folder),
            id=_identity(folder / "wandb-id", lambda: uuid4().hex[:12]),
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(recipe),
            settings=settings,
        )

    def write(self, values: Mapping[str, float], step: int) -> None:
        """A line of the run's history."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run's record."""
        self._run.finish()


@final
class MLflow:
    """MLflow, experiment ``cyborgs`` (MLFLOW_EXPERIMENT_NAME), in ``mlflow.db`` unless MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, folder: Path, step: int, recipe: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        tracking = _module("mlflow.tracking", "mlflow")
        home = folder.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
        self._client = tracking.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "cyborgs")
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            experiment = found.experiment_id
        else:
            place = (home / "mlflow").as_uri() if uri.startswith("sqlite:") else None
            experiment = self._client.create_experiment(name, artifact_location=place)

        def begin() -> str:
            run = self._client.create_run(experiment, run_name=home.name).info.run_id
            for key, value in _flat(recipe):
                self._client.log_param(run, key, value)
            return str(run)

        self._run = _identity(folder / "mlflow-id", begin)
        self._client.update_run(self._run, status="RUNNING")

    def write(self, values: Mapping[str, float], step: int) -> None:
        """All figures of a step in one call."""
        from mlflow.entities import Metric

        self._client.log_batch(self._run, [Metric(name, value, 0, step) for name, value in values.items()])

    def close(self) -> None:
        """Mark the run as ended."""
        self._client.set_terminated(self._run)


def _identity(path: Path, make: Callable[[], str]) -> str:
    """The id under which a run is known to a backend, kept in the run's folder."""
    if not path.is_file():
        write_bytes(path, make().encode())
    return path.read_text()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return pairs


BACKENDS: dict[str, Callable[[Path, int, Mapping[str, Any]], Backend]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
}


def open_backend(name: str, folder: Path, step: int, recipe: Mapping[str, Any]) -> Backend | None:
    """The backend of that name, or None for ``none``.

    Args:
        name: as ``Recipe.logger``.
        folder: the run's.
        step: the first step that will be logged.
        recipe: shown beside the figures, where the backend can.

    Raises:
        UserError: its packages are not installed (names the extra), or it cannot be started.
    """
    if name == "none":
        return None
    try:
        return BACKENDS[name](folder, step, recipe)
    except UserError:
        raise
    except Exception as error:  # whatever its library raises: before the first step it is time to choose another
        raise UserError(f"logger: {name} cannot be started ({error}). Mend it, or choose another --logger.") from error
