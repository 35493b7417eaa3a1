"""The protocols by name. No torch here.

``settings`` is the published protocol, ``small`` what ``--preset small`` makes of it: minutes on two cores, and not the
paper's protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from cyborgs.errors import UserError
from cyborgs.evaluation.settings.photos import (
    ClassificationSettings,
    KnnSettings,
    LabelFreeSettings,
    LinearClassificationSettings,
    Voc07Settings,
    VocKnnSettings,
)
from cyborgs.evaluation.settings.pixels import ClusteringSettings, DenseProbeSettings, FcnSettings, StuffProbeSettings
from cyborgs.evaluation.training.config import FineTuneConfig

Preset = Literal["small", "paper"]
DEFAULT_PRESET: Final[Preset] = "small"
"""Of every command: done in minutes anywhere, and its first line says that it is not the published protocol, which may
train for days."""
Settings = (
    Voc07Settings
    | KnnSettings
    | VocKnnSettings
    | LabelFreeSettings
    | LinearClassificationSettings
    | ClassificationSettings
    | FcnSettings
    | StuffProbeSettings
    | DenseProbeSettings
    | ClusteringSettings
)
"""Of any protocol."""


@dataclass(frozen=True)
class Entry:
    """A protocol: where its code lies and what it starts from."""

    module: str
    """Of this package; it has ``open_data`` and ``evaluate`` (``protocol.py``)."""
    about: str
    """One line for the command line."""
    settings: Settings
    """The published protocol."""
    small: Settings
    """``--preset small``."""
    needs: Literal["classes", "pixels", "photos"]
    """Labels: a class per photo, or per pixel, or none."""
    data_set: str = ""
    """The layout that ``open_data`` reads; empty: a folder."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Values of other authors, in percent: beside ours, never in place of them."""
    source: str = ""
    """Whose settings ``settings`` are; empty: ours."""
    photos: tuple[int, int] = (0, 0)
    """How many they were published with, to learn from and to be judged by."""
    variants: tuple[Settings, ...] = ()
    """Other published settings."""

    def of(self, preset: str) -> Settings:
        """The settings of a preset."""
        return self.small if preset == "small" else self.settings


def _classification(share: float, decay: float) -> ClassificationSettings:
    return ClassificationSettings(share=share, training=FineTuneConfig(weight_decay=decay))


def _small_classification(settings: ClassificationSettings) -> ClassificationSettings:
    training = replace(settings.training, epochs=3, batch_size=32)
    return replace(settings, size=96, rates=(0.01,), head_factors=(1.0,), training=training)


def _small_fcn(settings: FcnSettings, **changes: Any) -> FcnSettings:
    training = replace(settings.training, iterations=100, batch_size=8, checkpoint_every=100)
    kept: dict[str, Any] = {
        "crop": 128,
        "head_channels": 128,
        "training": training,
        "images": 40,
        "test_images": 10,
    }
    return replace(settings, **(kept | changes))


def _small_probe(settings: StuffProbeSettings) -> StuffProbeSettings:
    training = replace(settings.training, iterations=200, batch_size=8, checkpoint_every=200)
    return replace(settings, crop=128, resize=(0, 0), test_resize=(0, 0), images=200, test_images=50, training=training)


_CITYSCAPES = FcnSettings(
    crop=769,
    resize=(2049, 1025),
    test_resize=(0, 0),
    inference="slide",
    slide_stride=513,
    training=FineTuneConfig(
        iterations=40_000, batch_size=8, lr=0.01, weight_decay=5e-4, schedule="poly", min_lr=1e-4, epochs=0
    ),
)
_FCN = FcnSettings()
_NATIVE = replace(_FCN, resize=(0, 0), test_resize=(0, 0))
_CLUSTERS = ClusteringSettings(clusters=(27, 81, 256))

ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "voc07": Entry(
            "voc07",
            "VOC 2007 classification: linear SVMs on frozen features, mAP",
            Voc07Settings(),
            Voc07Settings(images=200, costs=(0.1, 1.0)),
            "classes",
            "voc",
            {"random (openselfsup)": 30.5, "ImageNet (openselfsup)": 87.2, "BYOL COCO": 84.5, "CYBORGS COCO": 86.9},
            source="VirTex, which CYBORGS' authors used (variant virtex), and OpenSelfSup, for the peers' rows",
            photos=(5_011, 4_952),
            variants=(Voc07Settings(variant="openselfsup"),),
        ),
        "voc07-knn": Entry(
            "voc_knn",
            "VOC 2007 classification: nearest neighbours of frozen features, mAP",
            VocKnnSettings(),
            VocKnnSettings(size=96, images=200),
            "classes",
            "voc",
        ),
        "imagenet-1pct": Entry(
            "classification",
            "ImageNet, 1% of the labels: fine-tuning, top-1 and top-5",
            _classification(0.01, 5e-4),
            _small_classification(_classification(0.01, 5e-4)),
            "classes",
            "imagenet",
            {"random": 1.6, "ImageNet": 68.7, "BYOL COCO": 28.4, "CYBORGS COCO": 31.3},
            source="OpenSelfSup, as ORL",
            photos=(12_811, 50_000),
        ),
        "imagenet-10pct": Entry(
            "classification",
            "ImageNet, 10% of the labels: fine-tuning, top-1 and top-5",
            _classification(0.1, 1e-4),
            _small_classification(_classification(0.1, 1e-4)),
            "classes",
            "imagenet",
            {"random": 21.8, "ImageNet": 74.5, "BYOL COCO": 58.4, "CYBORGS COCO": 61.7},
            source="OpenSelfSup, as ORL",
            photos=(128_116, 50_000),
        ),
        "folder-classification": Entry(
            "classification",
            "class folders: fine-tuning on any share of the labels",
            _classification(1.0, 1e-4),
            _small_classification(_classification(1.0, 1e-4)),
            "classes",
        ),
        "knn": Entry(
            "knn",
            "class folders: nearest neighbours of frozen features",
            KnnSettings(),
            KnnSettings(size=96),
            "classes",
            source="DINO",
            photos=(1_281_167, 50_000),
        ),
        "label-free": Entry(
            "label_free",
            "any photos, no labels: how widely frozen features are spread",
            LabelFreeSettings(),
            LabelFreeSettings(images=300, size=96),
            "photos",
        ),
        "linear-classification": Entry(
            "linear_classification",
            "class folders: a linear classifier on frozen features",
            LinearClassificationSettings(),
            LinearClassificationSettings(solver="logistic", size=96),
            "classes",
            source="VirTex",
            photos=(1_281_167, 50_000),
        ),
        "coco-stuff": Entry(
            "fcn",
            "COCO-Stuff-10k: FCN fine-tuned end to end, mIoU (Figure 5)",
            _FCN,
            _small_fcn(_NATIVE, images=200, test_images=50),
            "pixels",
            "coco-stuff-10k",
            source="CYBORGS: network, classes and split; the recipe is mmsegmentation's for this set, with Cityscapes' head",
            photos=(9_000, 1_000),
        ),
        "coco-stuff-probe": Entry(
            "stuff_probe",
            "COCO-Stuff-10k: a 1x1 convolution on a frozen map, mIoU (Figure 5b)",
            StuffProbeSettings(),
            _small_probe(StuffProbeSettings()),
            "pixels",
            "coco-stuff-10k",
            source="CYBORGS: map, probe, classes and split; the recipe is the FCN's",
            photos=(9_000, 1_000),
        ),
        "cityscapes": Entry(
            "fcn",
            "Cityscapes: FCN fine-tuned end to end, mIoU of 19 classes",
            _CITYSCAPES,
            _small_fcn(_CITYSCAPES, resize=(512, 256), test_resize=(512, 256), slide_stride=85),
            "pixels",
            "cityscapes",
            {"random": 65.3, "ImageNet": 73.7},
            source="DenseCL",
            photos=(2_975, 500),
        ),
        "voc-segmentation": Entry(
            "fcn",
            "VOC 2012 segmentation: FCN, mIoU of 21 classes",
            _FCN,
            _small_fcn(_NATIVE),
            "pixels",
            "voc-segmentation",
        ),
        "ade20k": Entry("fcn", "ADE20K: FCN, mIoU of 150 classes", _FCN, _small_fcn(_NATIVE), "pixels", "ade20k"),
        "camvid": Entry("fcn", "CamVid: FCN, mIoU of 11 classes", _NATIVE, _small_fcn(_NATIVE), "pixels", "camvid"),
        "folder-segmentation": Entry(
            "fcn", "photos and label PNGs: FCN fine-tuned end to end", _NATIVE, _small_fcn(_NATIVE), "pixels"
        ),
        "dense-probe": Entry(
            "dense_probe",
            "photos and label PNGs: a 1x1 convolution on frozen, whitened maps",
            DenseProbeSettings(),
            DenseProbeSettings(short_side=256),
            "pixels",
        ),
        "coco-stuff-27": Entry(
            "clustering",
            "COCO-Stuff, 27 classes (PiCIE's): clustering, and a linear probe",
            _CLUSTERS,
            replace(_CLUSTERS, side=160, images=100, test_images=50),
            "pixels",
            "coco-stuff-27",
            {"ImageNet accuracy": 24.6, "ImageNet mIoU": 8.9, "PiCIE accuracy": 48.1, "PiCIE mIoU": 13.8},
            source="PiCIE; the training of the linear probe is ours",
            photos=(49_629, 2_175),
        ),
        "clustering": Entry(
            "clustering",
            "photos and label PNGs: clusters matched to classes",
            ClusteringSettings(crop=False),
            ClusteringSettings(crop=False, side=160),
            "pixels",
        ),
    }
)


def known(name: str) -> str:
    """``name``, if a protocol has it. UserError lists those that there are."""
    if name not in ENTRIES:
        raise UserError(f"no protocol is named {name!r}. There are: {', '.join(ENTRIES)}.")
    return name
