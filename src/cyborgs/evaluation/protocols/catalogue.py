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


_NATIVE: Final[Mapping[str, Any]] = {"resize": (0, 0), "test_resize": (0, 0)}


def _row(module: str, about: str, settings: Settings, small: Mapping[str, Any], **more: Any) -> Entry:
    """``small``: what ``--preset small`` changes of the settings."""
    return Entry(module, about, settings, replace(settings, **small), **({"needs": "classes"} | more))


def _fine_tuning(about: str, share: float, decay: float, **more: Any) -> Entry:
    training = FineTuneConfig(weight_decay=decay)
    quick = replace(training, epochs=3, batch_size=32)
    small = {"size": 96, "rates": (0.01,), "head_factors": (1.0,), "training": quick}
    return _row("classification", about, ClassificationSettings(share=share, training=training), small, **more)


def _imagenet(share: float, decay: float, published: tuple[float, float, float, float], photos: int) -> Entry:
    return _fine_tuning(
        f"ImageNet, {share:.0%} of the labels: fine-tuning, top-1 and top-5",
        share,
        decay,
        data_set="imagenet",
        published=dict(zip(("random", "ImageNet", "BYOL COCO", "CYBORGS COCO"), published, strict=True)),
        source="OpenSelfSup, as ORL",
        photos=(photos, 50_000),
    )


def _fcn(about: str, data_set: str, settings: FcnSettings, small: Mapping[str, Any] = _NATIVE, **more: Any) -> Entry:
    training = replace(settings.training, iterations=100, batch_size=8, checkpoint_every=100)
    quick = {"crop": 128, "head_channels": 128, "training": training, "images": 40, "test_images": 10}
    return _row("fcn", about, settings, {**quick, **small}, needs="pixels", data_set=data_set, **more)


_CITYSCAPES: Final = FcnSettings(
    crop=769,
    resize=(2049, 1025),
    test_resize=(0, 0),
    inference="slide",
    slide_stride=513,
    training=replace(FcnSettings().training, iterations=40_000, batch_size=8, epochs=0),
)
_STUFF: Final = {"images": 200, "test_images": 50}
_PROBE: Final = StuffProbeSettings()
_QUICK_PROBE: Final = replace(_PROBE.training, iterations=200, batch_size=8, checkpoint_every=200)
_PHOTOS_OF_STUFF: Final = (9_000, 1_000)
_PHOTOS_OF_IMAGENET: Final = (1_281_167, 50_000)

ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "voc07": _row(
            "voc07",
            "VOC 2007 classification: linear SVMs on frozen features, mAP",
            Voc07Settings(),
            {"images": 200, "costs": (0.1, 1.0)},
            data_set="voc",
            published={
                "random (openselfsup)": 30.5,
                "ImageNet (openselfsup)": 87.2,
                "BYOL COCO": 84.5,
                "CYBORGS COCO": 86.9,
            },
            source="VirTex, which CYBORGS' authors used (variant virtex), and OpenSelfSup, for the peers' rows",
            photos=(5_011, 4_952),
            variants=(Voc07Settings(variant="openselfsup"),),
        ),
        "voc07-knn": _row(
            "voc_knn",
            "VOC 2007 classification: nearest neighbours of frozen features, mAP",
            VocKnnSettings(),
            {"size": 96, "images": 200},
            data_set="voc",
        ),
        "imagenet-1pct": _imagenet(0.01, 5e-4, (1.6, 68.7, 28.4, 31.3), 12_811),
        "imagenet-10pct": _imagenet(0.1, 1e-4, (21.8, 74.5, 58.4, 61.7), 128_116),
        "folder-classification": _fine_tuning("class folders: fine-tuning on any share of the labels", 1.0, 1e-4),
        "knn": _row(
            "knn",
            "class folders: nearest neighbours of frozen features",
            KnnSettings(),
            {"size": 96},
            source="DINO",
            photos=_PHOTOS_OF_IMAGENET,
        ),
        "label-free": _row(
            "label_free",
            "any photos, no labels: how widely frozen features are spread",
            LabelFreeSettings(),
            {"images": 300, "size": 96},
            needs="photos",
        ),
        "linear-classification": _row(
            "linear_classification",
            "class folders: a linear classifier on frozen features",
            LinearClassificationSettings(),
            {"solver": "logistic", "size": 96},
            source="VirTex",
            photos=_PHOTOS_OF_IMAGENET,
        ),
        "coco-stuff": _fcn(
            "COCO-Stuff-10k: FCN fine-tuned end to end, mIoU (Figure 5)",
            "coco-stuff-10k",
            FcnSettings(),
            {**_NATIVE, **_STUFF},
            source="CYBORGS: network, classes and split; the recipe is mmsegmentation's for this set, with Cityscapes' head",
            photos=_PHOTOS_OF_STUFF,
        ),
        "coco-stuff-probe": _row(
            "stuff_probe",
            "COCO-Stuff-10k: a 1x1 convolution on a frozen map, mIoU (Figure 5b)",
            _PROBE,
            {"crop": 128, **_NATIVE, **_STUFF, "training": _QUICK_PROBE},
            needs="pixels",
            data_set="coco-stuff-10k",
            source="CYBORGS: map, probe, classes and split; the recipe is the FCN's",
            photos=_PHOTOS_OF_STUFF,
        ),
        "cityscapes": _fcn(
            "Cityscapes: FCN fine-tuned end to end, mIoU of 19 classes",
            "cityscapes",
            _CITYSCAPES,
            {"resize": (512, 256), "test_resize": (512, 256), "slide_stride": 85},
            published={"random": 65.3, "ImageNet": 73.7},
            source="DenseCL",
            photos=(2_975, 500),
        ),
        "voc-segmentation": _fcn("VOC 2012 segmentation: FCN, mIoU of 21 classes", "voc-segmentation", FcnSettings()),
        "ade20k": _fcn("ADE20K: FCN, mIoU of 150 classes", "ade20k", FcnSettings()),
        "camvid": _fcn("CamVid: FCN, mIoU of 11 classes", "camvid", FcnSettings(**_NATIVE)),
        "folder-segmentation": _fcn("photos and label PNGs: FCN fine-tuned end to end", "", FcnSettings(**_NATIVE)),
        "dense-probe": _row(
            "dense_probe",
            "photos and label PNGs: a 1x1 convolution on frozen, whitened maps",
            DenseProbeSettings(),
            {"short_side": 256},
            needs="pixels",
        ),
        "coco-stuff-27": _row(
            "clustering",
            "COCO-Stuff, 27 classes (PiCIE's): clustering, and a linear probe",
            ClusteringSettings(clusters=(27, 81, 256)),
            {"side": 160, "images": 100, "test_images": 50},
            needs="pixels",
            data_set="coco-stuff-27",
            published={"ImageNet accuracy": 24.6, "ImageNet mIoU": 8.9, "PiCIE accuracy": 48.1, "PiCIE mIoU": 13.8},
            source="PiCIE; the training of the linear probe is ours",
            photos=(49_629, 2_175),
        ),
        "clustering": _row(
            "clustering",
            "photos and label PNGs: clusters matched to classes",
            ClusteringSettings(crop=False),
            {"side": 160},
            needs="pixels",
        ),
    }
)


def known(name: str) -> str:
    """``name``, if a protocol has it. UserError lists those that there are."""
    if name not in ENTRIES:
        raise UserError(f"no protocol is named {name!r}. There are: {', '.join(ENTRIES)}.")
    return name
