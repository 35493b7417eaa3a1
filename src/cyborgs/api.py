"""What ``import cyborgs`` offers: training with its monitors, segmenting, evaluating, looking ahead, the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from cyborgs.data.images import ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.log import moving
from cyborgs.evaluation.comparing.comparison import compare_backbones as compare
from cyborgs.evaluation.comparing.curve import curve_of_run as curve
from cyborgs.evaluation.comparing.evaluate import evaluate as evaluate
from cyborgs.masks.config import MaskConfig
from cyborgs.quality.of_masks import quality as quality
from cyborgs.runs.recipe import Recipe
from cyborgs.segmenting.config import ExportName, SegmentConfig, SegmentSource

if TYPE_CHECKING:
    from cyborgs.engine.callback import Callback
    from cyborgs.runs.pretrain import Run

__all__ = ["compare", "curve", "evaluate", "gallery", "pretrain", "quality", "read_photos", "report", "segment"]


def pretrain(
    recipe: Recipe,
    *,
    data: str | Path,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    stream: TextIO | None = None,
) -> Run:
    """Pretrain on a folder or list of photos, with the monitors that the recipe asks for.

    Args:
        recipe: what to do; with ``resume`` it must agree with the run's recipe.yaml.
        data: a folder (searched recursively) or a text file with a path a line.
        out: the run's folder.
        resume: go on from the last checkpoint.
        callbacks: called by the trainer, after the monitors.
        stream: where progress is written; default stderr.

    Raises:
        UserError: the input is at fault; says what to do.
        Stopped: interrupted, after a checkpoint was written.
    """
    # The trainer, which the other functions do without, takes a second to load.
    from cyborgs.looking.monitors import monitors
    from cyborgs.runs import pretrain as run

    every = [*monitors(recipe, data, out), *callbacks]
    return run.pretrain(recipe, data=data, out=out, resume=resume, callbacks=every, stream=stream)


def read_photos(data: str | Path) -> ScannedImages:
    """Scan a folder or list of photos, with a bar in a terminal.

    Raises:
        UserError: nothing there, or nothing readable.
    """
    with moving("reading photos") as progress:
        return ScannedImages.from_scan(scan(list_images(data), progress=progress))


def segment(
    data: str | Path,
    *,
    out: str | Path,
    backbone: str | Path | None = None,
    source: SegmentSource = "clusters",
    clusters: int | Sequence[int] = (),
    layers: Sequence[str] = (),
    resolution: Literal["full", "nearest"] | None = None,
    short_side: int = 0,
    seed: int = 0,
    masks: MaskConfig | None = None,
    crf: bool = False,
    overlays: bool = True,
    export: Sequence[ExportName] = ("coco",),
    min_area: int = 64,
    overwrite: bool = False,
    device: str = "cpu",
) -> None:
    """Masks of a folder of photos: label PNGs at the photos' size, overlays, and what other programs read.

    A second start with the same settings goes on where the first one ended.

    Args:
        data: a folder or list of photos.
        out: folder for ``labels/``, ``overlays/``, ``palette.json``, ``segmentation.json``, ``segments.csv`` and exports;
            with several numbers of clusters a folder ``k<K>`` below it for each.
        backbone: for clusters and bootstrap: what ``models.named`` takes.
        source: clusters: one clustering of all photos' features; bootstrap: groups of photos, as in training; grid, whole,
            felzenszwalb, selective-search, ground-truth: ``masks.config``.
        clusters: 2 to 256 each; none: 27 for clusters, for bootstrap drawn anew for each group as in training.
        layers: what is clustered; none: as in the run's recipe, or the last block at stride 8.
        resolution: full: features are enlarged bilinearly (clusters alone; their default); nearest: labels of cells.
        short_side: longest allowed short side for the network, in pixels; 0: native size.
        seed: of the clustering, of groups, of random weights.
        masks: settings of the sources and of the CRF; ``source``, ``short_side`` and ``crf.enabled`` in it are not used.
        crf: refine the masks of clusters; needs the extra ``crf``.
        overlays: write them too.
        export: formats beside the PNGs; ``none`` or nothing: none.
        min_area: smallest part that is an instance for COCO, in pixels.
        overwrite: remove a segmentation of other settings from ``out`` first.
        device: where the network and the clustering run.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    from cyborgs.segmenting.run import segment as write

    write(
        data,
        read_photos,
        SegmentConfig(
            source=source,
            clusters=(clusters,) if isinstance(clusters, int) else tuple(clusters),
            layers=tuple(layers),
            resolution=resolution,
            short_side=short_side,
            seed=seed,
            masks=masks or MaskConfig(),
            crf=crf,
            overlays=overlays,
            export=tuple(export),
            min_area=min_area,
        ),
        out=out,
        backbone=backbone,
        overwrite=overwrite,
        device=device,
    )


def report(
    run: str | Path, *, data: str | Path | None = None, truth: str | Path | None = None, out: str | Path | None = None
) -> Path:
    """Write the page of a run, finished or going on, with the nearest neighbours of some regions; its path.

    Args:
        run: the run's folder.
        data: the photos it was pretrained on; None: no pictures.
        truth: folder with the truth of photo ``a/b.jpg`` as ``a/b.png``.
        out: the page; ``report.html`` in the run's folder by default.

    Raises:
        UserError: no run there, other photos than the run's, or a page that would lie among the photos.
    """
    from cyborgs.looking.of_run import neighbours_of_run
    from cyborgs.recipes import RECIPES
    from cyborgs.report.page import report as write

    return write(run, data=data, truth=truth, out=out, recipes=RECIPES, find=neighbours_of_run)


def gallery(
    backbone: str | Path,
    *,
    data: str | Path,
    out: str | Path,
    truth: str | Path | None = None,
    formats: Sequence[str] = (),
    count: int = 6,
    photos: Sequence[str] = (),
    clusters: int = 27,
    fit: int = 256,
    layers: Sequence[str] = (),
    short_side: int = 0,
    crf: bool = True,
    numbers: bool = False,
    void: int | None = 255,
    seed: int = 0,
) -> list[Path]:
    """Figure 4: photos, their clusters at full resolution, the same after a CRF, and the truth; the paths written.

    Args:
        backbone: a run's folder (finished or going on) or a backbone.safetensors.
        data: a folder or list of photos.
        out: the page (.html) or picture (.png, .pdf).
        truth: annotations: a folder of label PNGs, or KIND:PATH; none: no such column.
        formats: ``html``, ``png``, ``pdf``: all that is written; none: what ``out`` says.
        count: photos, evenly spread.
        photos: their names, in place of ``count``.
        clusters: 2 to 256.
        fit: photos that are clustered together, those shown among them, at most.
        layers: what is clustered; none: as in the run's recipe.
        short_side: longest allowed short side for the network, in pixels; 0: native size.
        crf: a column refined by a CRF, where the extra is installed.
        numbers: write each region's number on it, also where colours tell them apart.
        void: label of pixels without truth, in annotations that are plain PNGs.
        seed: of the clustering.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    from cyborgs.gallery.page import formats_of, write_gallery
    from cyborgs.gallery.rows import gallery_rows

    formats_of(out, formats)  # a wrong suffix is told before the work, not after it
    rows, said = gallery_rows(
        Path(backbone),
        read_photos(data),
        truth=truth,
        count=count,
        names=photos,
        clusters=clusters,
        fit=fit,
        layers=layers,
        short_side=short_side,
        crf=crf,
        void=void,
        seed=seed,
    )
    return write_gallery(
        rows,
        out,
        formats=formats,
        title=Path(backbone).name or Path(backbone).resolve().name,
        said=said,
        numbers=numbers,
    )
