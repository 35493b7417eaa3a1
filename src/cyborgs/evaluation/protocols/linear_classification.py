"""A linear classifier on frozen features of class folders.

``sgd`` (kdexd/virtex): crops and mirrors, the network frozen in eval mode, a linear layer from N(0, 0.01) on the mean of
its last map; SGD 0.3 for 256 images, no decay, half a cosine, 100 epochs. ``logistic``: logistic regression on the
cached features of the middle square, unit length, its cost by cross-validation; quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cyborgs.errors import NotFiniteError, UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.photos.features import features_of
from cyborgs.evaluation.photos.fits import Fit
from cyborgs.evaluation.photos.logistic import fit_logistic
from cyborgs.evaluation.photos.pooled import class_shares, collapsed, counts_of, unknown_classes
from cyborgs.evaluation.sets.classified import ClassifiedData, open_folders
from cyborgs.evaluation.settings.photos import LinearClassificationSettings
from cyborgs.evaluation.training.config import FineTuneConfig
from cyborgs.evaluation.training.crops import Crops
from cyborgs.evaluation.training.finetune import Objective, fine_tune
from cyborgs.features.cache import Extraction
from cyborgs.features.extraction import frozen
from cyborgs.features.transforms import Square
from cyborgs.metrics.judged import Hits
from cyborgs.models.weights import weights_hash
from cyborgs.ops.normalise import unit_rows
from cyborgs.seeds import torch_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

BATCH: Final = 256
"""Images that ``lr`` is meant for."""
TOP: Final = 5
_HEAD: Final = 54
"""Stream of ``torch_generator(seed, "evaluation", ...)``."""


def open_data(data: str, settings: LinearClassificationSettings, seed: int, data_set: str = "") -> ClassifiedData:
    """Class folders."""
    return open_folders(data, seed)


@final
class Head(Objective):
    """A linear layer behind a network that is not trained, and not part of what is saved."""

    def __init__(self, backbone: Backbone, layer: str, classes: int, seed: int) -> None:
        super().__init__()
        self._backbone = (backbone,)  # in a tuple: no submodule, so that no mode, format or checkpoint reaches it
        self._layer = layer
        # By way of "meta", or the global generator would be drawn from.
        self.linear = nn.Linear(backbone.widths[layer], classes, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            self.linear.weight.normal_(0, 0.01, generator=torch_generator(seed, "evaluation", _HEAD))
            self.linear.bias.zero_()

    def losses(self, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Cross-entropy of images uint8 (B, 3, S, S)."""
        (backbone,) = self._backbone
        with frozen(backbone) as device:
            maps = backbone(backbone.normalise(images.to(device)), layers=[self._layer])[self._layer]
            pooled = maps.float().mean(dim=(2, 3)).to(targets.device)
        if not bool(torch.isfinite(pooled).all()):
            raise NotFiniteError(f"{self._layer} holds NaN or infinity. The weights are damaged.")
        return {"class": F.cross_entropy(self.linear(pooled), targets)}

    def groups(self, head_lr_factor: float) -> list[dict[str, Any]]:
        """Weight and bias."""
        return [{"params": list(self.linear.parameters()), "lr_scale": head_lr_factor}]


def evaluate(
    backbone: Backbone, data: ClassifiedData, settings: LinearClassificationSettings, context: Context
) -> Result:
    """Top-1, and top-5 where there are more than five classes.

    Raises:
        UserError: fewer than two classes to learn, or the features hold NaN.
    """
    layer = settings.layer or backbone.layers[-1]
    chosen = data.chosen(context.share, context.seed)
    labels, truth, classes = data.train.labels[chosen], data.test.labels, len(data.train.classes)
    if len(np.unique(labels)) < 2:
        raise UserError("the training photos have one class alone: there is nothing to tell apart.")
    solve = _logistic if settings.solver == "logistic" else _sgd
    scores, warned, said = solve(backbone, data, Extraction(layer, Square(settings.size)), settings, context)
    right = scores.argmax(axis=1) == truth
    figures = {"top1": float(right.mean())}
    if classes > TOP:
        first = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        figures["top5"] = float((first == truth[:, None]).any(axis=1).mean())
    figures["commonest_class"] = float(np.bincount(truth).max() / len(truth))
    return Result(
        "top1",
        figures,
        Hits(right),
        asdict(settings) | {"layer": layer} | said,
        counts_of(data, len(chosen)),
        context.seed,
        class_shares(right, truth, data.test.classes),
        (*data.notes, *unknown_classes(data, labels), *warned),
    )


Solved = tuple[NDArray[np.floating[Any]], list[str], dict[str, Any]]
"""Scores (M, classes) of the test photos, warnings, and what the settings do not say."""


def _logistic(
    backbone: Backbone, data: ClassifiedData, how: Extraction, settings: LinearClassificationSettings, context: Context
) -> Solved:
    train, test = (
        unit_rows(torch.from_numpy(x).double())
        for x in features_of(backbone, [data.train.photos, data.test.photos], how, context)
    )
    chosen = data.chosen(context.share, context.seed)
    labels = data.train.labels[chosen]
    fit = fit_logistic(train[chosen].numpy(), labels, test.numpy(), len(data.train.classes), settings.costs)
    return fit.scores, collapsed(train) + _of_fit(fit, settings), {"chosen_cost": fit.cost}


def _of_fit(fit: Fit, settings: LinearClassificationSettings) -> list[str]:
    warned = []
    if fit.unconverged:
        warned.append(f"{fit.unconverged} of {fit.fits} logistic regressions did not converge (ConvergenceWarning).")
    if not fit.means and len(settings.costs) > 1:
        warned.append(f"no class has two training photos: C = {fit.cost} was taken, not chosen.")
    elif len(settings.costs) > 1 and fit.cost in (min(settings.costs), max(settings.costs)):
        warned.append(f"the chosen C = {fit.cost} lies at the end of the grid: another one might do better.")
    return warned


def _sgd(
    backbone: Backbone, data: ClassifiedData, how: Extraction, settings: LinearClassificationSettings, context: Context
) -> Solved:
    # Before the training: it also finds what cannot be read.
    (test,) = features_of(backbone, [data.test.photos], how, context)
    crops = Crops(data.share(context.share, context.seed), settings.size)
    head = Head(backbone, how.layer, len(data.train.classes), context.seed)
    training = FineTuneConfig(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr * settings.batch_size / BATCH,
        weight_decay=0.0,
        schedule="cosine",
    )
    identity = {
        "weights": weights_hash(backbone),
        "data": data.fingerprint,
        "share": context.share,
        "layer": how.layer,
        "size": settings.size,
    }
    done = fine_tune(head, crops, training, context, names=["class"], identity=identity, folder="linear")
    with torch.no_grad():
        linear = head.linear.cpu()
        scores = linear(torch.from_numpy(test)).numpy()
    said = {"training": asdict(training), "last_loss": done.losses.get("loss")}
    return scores, collapsed(unit_rows(torch.from_numpy(test))), said
