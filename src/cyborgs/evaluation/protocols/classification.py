"""Fine-tuning for classification on a share of the labels: ImageNet 1% and 10%, and class folders.

As OpenSelfSup does it (Jiahao000/ORL, ``semisup_classification``): the whole network and a linear layer on the mean of
its last map, random crops and flips, SGD at a rate for the network and a multiple of it for the linear layer, both from a grid. Top-1 and top-5
of the last epoch on the middle square. No warm-up, no early stopping.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cyborgs.data.images import Images
from cyborgs.engine.contract import LossError
from cyborgs.errors import NotFiniteError, UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.photos.pooled import counts_of
from cyborgs.evaluation.sets.classified import ClassifiedData, open_folders
from cyborgs.evaluation.sets.labelled import Classified
from cyborgs.evaluation.sets.lists import named
from cyborgs.evaluation.sets.splits import fingerprint, stratified
from cyborgs.evaluation.settings.photos import ClassificationSettings
from cyborgs.evaluation.training.config import FineTuneConfig
from cyborgs.evaluation.training.crops import Crops
from cyborgs.evaluation.training.finetune import Objective, fine_tune
from cyborgs.features.cache import Extraction, features
from cyborgs.features.transforms import Square
from cyborgs.metrics.accuracy import by_class, ranks, top_k
from cyborgs.metrics.judged import Hits
from cyborgs.models.weights import weights_hash
from cyborgs.seeds import torch_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

_TENTH: Final = 65
_HEAD: Final = 66  # streams of a generator (seed, "evaluation", ...)
HEAD_STD: Final = 0.01
TOP: Final = 5


class Classifier(Objective):
    """A copy of a backbone, and a linear layer on the mean of its last map; all of it is trained."""

    def __init__(self, backbone: Backbone, classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone).requires_grad_(True)
        self.layer = backbone.layers[-1]
        width = backbone.widths[self.layer]
        generator = torch_generator(seed, "evaluation", _HEAD)
        with torch.random.fork_rng(devices=[]):
            self.head = nn.Linear(width, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(classes, width, generator=generator) * HEAD_STD)
            self.head.bias.zero_()

    def losses(self, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Cross-entropy; images uint8 (B, 3, S, S), targets int64 (B,)."""
        maps = self.backbone(self.backbone.normalise(images), layers=[self.layer])[self.layer]
        return {"class": F.cross_entropy(self.head(maps.mean(dim=(2, 3))), targets)}

    def groups(self, head_lr_factor: float) -> list[dict[str, Any]]:
        """The backbone's parameters, and the linear layer's at a multiple of the rate."""
        return [
            {"params": list(self.backbone.parameters())},
            {"params": list(self.head.parameters()), "lr_scale": head_lr_factor},
        ]

    @torch.no_grad()
    def scores(self, photos: Images, size: int, context: Context) -> NDArray[np.float64]:
        """Logits of the middle squares, float64 (N, classes). NotFiniteError names the photo."""
        found = features(
            self.backbone,
            photos,
            Extraction(self.layer, Square(size)),
            threads=context.workers or None,
            progress=context.progress,
        )
        logits: NDArray[np.float64] = F.linear(
            torch.from_numpy(found).double(), self.head.weight.double().cpu(), self.head.bias.double().cpu()
        ).numpy()
        return logits


def open_data(data: str, settings: ClassificationSettings, seed: int, data_set: str = "") -> ClassifiedData:
    """Class folders (``classified.open_folders``); with ``settings.labels`` the training photos that it names alone."""
    found = open_folders(data, seed)
    if not settings.labels:
        return found
    photos = [Path(found.train.name(i)) for i in range(len(found.train))]
    numbers = named(Path(settings.labels), photos, [found.train.classes[c] for c in found.train.labels])
    chosen = found.train.part(numbers)
    if len(np.unique(chosen.labels)) < 2:
        raise UserError(f"{settings.labels}: need photos of at least two classes.")
    beyond = {"train, not in the list": len(found.train) - len(chosen)}
    return replace(found, train=chosen, left_out=dict(found.left_out) | beyond)


def evaluate(backbone: Backbone, data: ClassifiedData, settings: ClassificationSettings, context: Context) -> Result:
    """Top-1 and top-5 of the best point of the grid, and accuracy by class.

    Raises:
        UserError: no point of the grid trains, or the network is damaged.
        Stopped: by a signal; the same call with the same ``context.out`` goes on.
    """
    share = context.share if settings.labels else context.share * settings.share
    train = data.share(share, context.seed)
    grid = [Point(rate, factor) for rate in settings.rates for factor in settings.head_factors]
    apart = settings.choose_on == "train-tenth" and len(grid) > 1
    learnt, chosen_on = _without_tenth(train, context.seed) if apart else (train, data.test)
    best: tuple[float, Point, NDArray[np.float64]] | None = None
    tried: dict[str, float | None] = {}
    last: UserError | None = None
    for number, point in enumerate(grid, 1):
        try:
            scores = trained(backbone, learnt, chosen_on.photos, point, settings, context)
        except (LossError, NotFiniteError) as error:  # the others go on: a high rate may be too high
            context.say(f"{point} ({number} of {len(grid)}): {error}")
            tried[str(point)], last = None, error
            continue
        top_1 = tried[str(point)] = top_k(ranks(scores, chosen_on.labels), 1)
        context.say(f"{point} ({number} of {len(grid)}): top-1 {100 * top_1:.1f}%")
        if best is None or top_1 > best[0]:
            best = top_1, point, scores
    if best is None:
        raise UserError(f"no point of the grid could be trained. The last: {last}") from last
    _, point, scores = best
    if apart:
        context.say(f"{point} is best on a tenth of the training photos; training on all of them")
        scores = trained(backbone, train, data.test.photos, point, settings, context)
    return _result(scores, data, train, settings, context, point, tried)


@dataclass(frozen=True)
class Point:
    """Of the grid."""

    lr: float
    head_lr_factor: float

    def __str__(self) -> str:
        return f"lr {self.lr:g}, head x{self.head_lr_factor:g}"


def trained(
    backbone: Backbone,
    train: Classified,
    judged: Images,
    point: Point,
    settings: ClassificationSettings,
    context: Context,
) -> NDArray[np.float64]:
    """Logits of the judged photos, float64 (N, classes), after a training on ``train``. The backbone stays as it is."""
    config: FineTuneConfig = replace(settings.training, lr=point.lr, head_lr_factor=point.head_lr_factor)
    objective = Classifier(backbone, len(train.classes), context.seed)
    identity = {
        "weights": weights_hash(backbone),
        "layer": objective.layer,
        "train": fingerprint({"train": train.photos}, train.identity()),
        "size": settings.size,
    }
    # By number of photos too: a tenth less for the choice, all of them for the last training.
    folder = f"lr{point.lr:g}-head{point.head_lr_factor:g}-{len(train)}"
    fine_tune(
        objective, Crops(train, settings.size), config, context, names=["class"], identity=identity, folder=folder
    )
    return objective.scores(judged, settings.size, context)


def _without_tenth(train: Classified, seed: int) -> tuple[Classified, Classified]:
    """The training photos without a tenth, and the tenth: of each class that has two photos or more, at least one."""
    several = np.flatnonzero(np.bincount(train.labels)[train.labels] > 1)
    if not len(several):
        raise UserError(
            "choose_on: no class has two training photos, so none can be spared to choose on. Take val, or give a "
            "grid of one point."
        )
    tenth = several[stratified(train.labels[several], 0.1, seed, _TENTH)]
    rest = np.setdiff1d(np.arange(len(train)), tenth)
    return train.part(rest), train.part(tenth)


def _result(
    scores: NDArray[np.float64],
    data: ClassifiedData,
    train: Classified,
    settings: ClassificationSettings,
    context: Context,
    point: Point,
    tried: Mapping[str, float | None],
) -> Result:
    classes = train.classes
    found = ranks(scores, data.test.labels)
    each = by_class(found < 1, data.test.labels, len(classes))
    figures = {"top1": top_k(found, 1), "class_mean": float(np.nanmean(each))}
    if len(classes) > TOP:
        figures["top5"] = top_k(found, TOP)
    return Result(
        "top1",
        figures,
        Hits(found < 1),
        asdict(settings) | {"chosen": asdict(point), "grid": dict(tried)},
        counts_of(data, len(train)),
        context.seed,
        dict(zip(classes, each.tolist(), strict=True)),
        tuple(_warnings(data, train, settings, context.seed, tried)),
    )


def _warnings(
    data: ClassifiedData,
    train: Classified,
    settings: ClassificationSettings,
    seed: int,
    tried: Mapping[str, float | None],
) -> list[str]:
    warned = [f"{note}." for note in data.notes]
    if len(train) < len(data.train):
        warned.append(
            f"own split: {len(train)} of {len(data.train)} training photos, a stratified share drawn from seed {seed}."
        )
    absent = [
        name
        for name, n in zip(train.classes, np.bincount(train.labels, minlength=len(train.classes)), strict=True)
        if not n
    ]
    if absent:
        warned.append(f"{len(absent)} classes have no training photo: {', '.join(absent[:TOP])}.")
    if len(tried) > 1 and settings.choose_on == "val":
        warned.append(
            "the point of the grid was chosen on the test photos, as the peers do: the figures are optimistic."
        )
    failed = [point for point, top_1 in tried.items() if top_1 is None]
    if failed:
        warned.append(f"{len(failed)} of {len(tried)} points of the grid diverged: {'; '.join(failed)}.")
    if len(train.classes) <= TOP:
        warned.append(f"top-5 says nothing of {len(train.classes)} classes and is left out.")
    return warned
