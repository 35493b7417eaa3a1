"""The recipe: every choice of a run in one frozen value. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tyro.conf import Suppress

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.health.config import HealthConfig
from cyborgs.masks.config import MaskConfig
from cyborgs.methods.registry import default_settings
from cyborgs.methods.settings import MethodConfig
from cyborgs.models.config import BackboneConfig
from cyborgs.prepare.config import PrepareConfig
from cyborgs.runs.monitor_config import MonitorConfig
from cyborgs.views.config import ViewSpec


@dataclass(frozen=True)
class Recipe:
    """A complete run: method, network, views, masks, optimiser, length."""

    name: Suppress[str] = "small"
    """Name of the recipe it started from."""
    method: MethodConfig = field(default_factory=default_settings)
    """The method and its settings."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network."""
    views: ViewSpec = field(default_factory=ViewSpec)
    """The views."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """The masks."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """What is made of the photos once, where the crops or the method ask for it."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and learning rate."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """What is done about a run that does not go well."""
    epochs: int = 800
    """Passes over the photos."""
    batch_size: int = 64
    """Global batch: images in an optimiser step, over all processes."""
    micro_batch: int | Literal["auto"] = 0
    """Images of a process that are computed at once, gradients accumulated; 0: its whole share; auto: as many as fit."""
    negatives: Literal["micro", "global"] = "micro"
    """Negatives of loss 1 where micro_batch divides the batch: of one micro-batch (over all processes), or of the
    whole global batch, by caching embeddings and computing everything twice."""
    seed: int = 0
    """Everything random derives from it."""
    workers: int = 2
    """Loader processes; the result does not depend on it."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the networks."""
    deterministic: bool = False
    """Deterministic algorithms on GPUs too (slower); on a CPU runs are bit for bit equal anyway."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    logger: Literal["tensorboard", "wandb", "mlflow", "none"] = "tensorboard"
    """What takes the figures beside metrics.jsonl; wandb (offline unless WANDB_MODE is set) and mlflow are extras."""
    checkpoint_every: int = 500
    """Steps between checkpoints; one is also written at every refresh and at the end."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept."""
    snapshots: tuple[int, ...] = ()
    """Epochs at whose beginning the backbone is kept in snapshots/ (Figure 5b); the end counts as `epochs`."""
    snapshot_refreshes: bool = False
    """Keep the backbone at the start, at every refresh and at the end too."""
    max_skipped: float = 0.1
    """Largest share of files that may be unreadable before the run refuses to start."""
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    """What is measured while the run goes."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: need at least 1, got {getattr(self, name)}")
        for name in ("workers", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: need at least 0, got {getattr(self, name)}")
        if self.workers > 1024:
            raise ValueError(f"workers: need at most 1024 processes, got {self.workers}")
        if not 0 <= self.max_skipped <= 1:
            raise ValueError(f"max_skipped: need a share from 0 to 1, got {self.max_skipped}")
        micro_batch = 0 if self.micro_batch == "auto" else self.micro_batch
        if micro_batch < 0 or (micro_batch and self.batch_size % micro_batch):
            raise ValueError(
                f"micro_batch: need auto, 0 (the whole share of a process) or a divisor of batch_size "
                f"{self.batch_size}, got {self.micro_batch}"
            )
        if type(self.method) is MethodConfig:  # tyro's, on the way to the settings of a method
            return
        if self.negatives == "global" and not self.method.has_negatives:
            raise ValueError("negatives: this method's loss has none, need 'micro', got 'global'")
        if "masks" not in self.method.artefacts:
            if self.masks.source != "none":
                raise ValueError(f"masks.source: this method uses no masks, need 'none', got {self.masks.source!r}")
        elif self.masks.source == "none":
            raise ValueError("masks.source: this method needs masks, got 'none'")
        elif self.masks.source == "bootstrap" and self.method.bootstrapping is None:
            raise ValueError("masks.source: this method makes no masks itself, need another source, got 'bootstrap'")
        self.method.check_views(self.views)
        unit = self.method.batch_unit
        for name, images in (("batch_size", self.batch_size), ("micro_batch", micro_batch)):
            if images % unit:
                raise ValueError(
                    f"{name}: need a multiple of {self.method.batch_unit_field or 'the method'} {unit}, got {images}"
                )

    @property
    def peak_rate(self) -> float:
        """The highest learning rate of the run."""
        return self.optimizer.lr * self.batch_size / self.optimizer.lr_batch

    def steps_per_epoch(self, images: int) -> int:
        """Global batches in an epoch; the incomplete last one is dropped."""
        return images // self.batch_size

    def located(self) -> Recipe:
        """The same with absolute paths to what it reads while it goes, so that it can go on from anywhere."""
        return replace(self, masks=self.masks.located(), prepare=self.prepare.located())

    def resolved(self, images: int) -> Recipe:
        """The recipe for a known number of photos: every number of steps as epochs."""
        return replace(self, method=self.method.resolved(self.steps_per_epoch(images)))
