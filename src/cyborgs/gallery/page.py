"""Figure 4: photos and their label maps side by side, as a page that needs nothing else, or as one picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from cyborgs.data.colours import SAFE, Numbers, by_size, colour_name, matched, paint, renumbered
from cyborgs.data.palette import nearest, palette
from cyborgs.errors import UserError, printable
from cyborgs.files import make_folder, write_bytes
from cyborgs.report.pictures import Drawn, Picture, encode

UInt8 = NDArray[np.uint8]
Format = str

FORMATS: Final = ("html", "png", "pdf")
WIDTH: Final = 480
"""Of a picture on the page, in pixels: enough for a screen of twice the density."""
TOLD: Final = 6
"""Regions that a picture's description names, at most."""


@dataclass(frozen=True)
class Column:
    """What one column shows."""

    key: str
    title: str
    note: str
    """One sentence below the table of pictures."""


PHOTO: Final = Column("photo", "Photo", "")
CLUSTERS: Final = Column(
    "clusters", "k-means", "Spherical k-means of bilinearly enlarged features, at full resolution."
)
CRF: Final = Column("crf", "After a CRF", "The same clusters, refined by a dense CRF with the cosines as unaries.")
TRUTH: Final = Column("truth", "Truth", "People's annotation.")


@dataclass(frozen=True)
class GalleryRow:
    """One photo with what belongs to it; all maps (H, W) of the photo's size or to be enlarged to it."""

    name: str
    image: UInt8
    """uint8 (H, W, 3)."""
    clusters: NDArray[np.integer]
    """The label of each pixel."""
    refined: NDArray[np.integer] | None = None
    """The same clusters after a CRF."""
    truth: NDArray[np.integer] | None = None
    """Region or class of each pixel, -1 where void."""
    truth_names: Sequence[str] = ()
    """What truth c is called; empty: not known."""


@dataclass(frozen=True)
class _Cell:
    title: str
    image: UInt8
    alt: str
    told: str = ""
    """What has which colour."""


def formats_of(out: Path | str, formats: Sequence[Format] = ()) -> list[Format]:
    """What is written, each once. UserError for what is none of ``FORMATS``."""
    wanted = list(dict.fromkeys(formats)) or [Path(out).suffix.lower().removeprefix(".")]
    for name in wanted:
        if name not in FORMATS:
            raise UserError(
                f"{out}: a gallery is written as {', '.join(FORMATS)}; give --out such a suffix, or --formats."
            )
    return wanted


def write_gallery(
    rows: Sequence[GalleryRow],
    out: Path | str,
    *,
    formats: Sequence[Format] = (),
    title: str = "Masks",
    said: Sequence[str] = (),
    numbers: bool = False,
) -> list[Path]:
    """Write the gallery; the paths of what was written.

    In a row, the same colour stands for the same thing in every column: clusters are matched to the truth's regions
    one to one on their overlap (without a truth, colours go by size). Up to eight colours are safe for colour-blind
    readers; a row with more writes each region's number on it.

    Args:
        rows: the photos.
        out: the file; its suffix says what it is.
        formats: ``html``, ``png``, ``pdf``: all that is written, beside each other; none: what ``out`` says.
        title: of the page.
        said: sentences above the pictures: from which weights, what was left out.
        numbers: write them in all rows.

    Raises:
        UserError: no photo, or a format that is none of these.
    """
    out, wanted = Path(out), formats_of(out, formats)
    if not rows:
        raise UserError("there is no photo for the gallery.")
    columns = [PHOTO, CLUSTERS]
    columns += [CRF] if any(row.refined is not None for row in rows) else []
    columns += [TRUTH] if any(row.truth is not None for row in rows) else []
    cells = [_cells(row, columns, numbers) for row in rows]
    names = [printable(row.name) for row in rows]
    make_folder(out.parent, parents=True)
    written = []
    for name in wanted:
        path = out if out.suffix.lower() == f".{name}" else out.with_suffix(f".{name}")
        data = _page(names, cells, columns, title, said) if name == "html" else _picture(names, cells, columns, name)
        write_bytes(path, data)
        written.append(path)
    return written


def _cells(row: GalleryRow, columns: Sequence[Column], written: bool) -> dict[str, _Cell]:
    """The row's pictures, by column."""
    maps, names = _numbered(row)
    most = max(int(m.max(initial=-1)) + 1 for m in maps.values())
    written = written or most > len(SAFE)
    shape = row.image.shape[:2]
    scale = min(1.0, WIDTH / shape[1], 2 * WIDTH / shape[0])
    small = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    image = row.image if scale == 1 else np.asarray(cv2.resize(row.image, small[::-1], interpolation=cv2.INTER_AREA))
    shown = printable(row.name)
    cells = {PHOTO.key: _Cell(PHOTO.title, np.asarray(image, np.uint8), f"photo {shown}")}
    for column in columns:
        if column.key in maps:
            of_map = maps[column.key]
            drawn = paint(nearest(of_map, *small), image, written=written)  # type: ignore[arg-type]
            told = _shares(of_map, names if column is TRUTH else {}, written)
            alt = f"{column.title} of {shown}: {told}"
            cells[column.key] = _Cell(column.title, drawn, alt, f"{column.title}: {told}.")
    return cells


def _numbered(row: GalleryRow) -> tuple[dict[str, Numbers], dict[int, str]]:
    """The row's maps with the numbers of their colours, and what the truth's numbers are called."""
    height, width = row.image.shape[:2]

    def full(labels: NDArray[np.integer]) -> NDArray[np.int32]:
        return nearest(labels, height, width).astype(np.int32)

    clusters = full(row.clusters)
    maps: dict[str, Numbers] = {}
    names: dict[int, str] = {}
    if row.truth is None:
        numbers = by_size(clusters)
    else:
        truth = full(row.truth)
        of_truth = by_size(truth)
        maps[TRUTH.key] = renumbered(truth, of_truth)
        names = {n: row.truth_names[c] for c, n in of_truth.items() if c < len(row.truth_names)}
        numbers = matched(clusters, maps[TRUTH.key])
    if row.refined is not None:
        refined = full(row.refined)
        # A CRF knows the clusters of its unaries: a cluster that won no pixel before may win some.
        free = max(numbers.values(), default=-1) + 1
        for label in by_size(refined):
            if label not in numbers:
                numbers[label] = free
                free += 1
        maps[CRF.key] = renumbered(refined, numbers)
    maps[CLUSTERS.key] = renumbered(clusters, numbers)
    return maps, names


def _shares(numbers: Numbers, names: Mapping[int, str], written: bool) -> str:
    """What share of the picture each region has, the largest first."""
    found, pixels = np.unique(numbers[numbers >= 0], return_counts=True)
    order = np.argsort(-pixels, kind="stable")
    parts = []
    for place in order[:TOLD]:
        number = int(found[place])
        colour = colour_name(number)
        if written and number < len(SAFE):
            colour = f"number {number + 1}, {colour}"
        called = f"{printable(names[number])} ({colour})" if number in names else colour
        parts.append(f"{called} {pixels[place] / numbers.size:.0%}")
    if len(order) > TOLD:
        parts.append(f"{len(order) - TOLD} more {pixels[order[TOLD:]].sum() / numbers.size:.0%}")
    if len(found) and (void := float((numbers < 0).mean())) >= 0.005:
        parts.append(f"void {void:.0%}")
    count = f"{len(found)} region{'' if len(found) == 1 else 's'}"
    return f"{count}: {', '.join(parts)}" if parts else "void everywhere"


def _page(
    names: Sequence[str],
    cells: Sequence[Mapping[str, _Cell]],
    columns: Sequence[Column],
    title: str,
    said: Sequence[str],
) -> bytes:
    environment = Environment(
        # The style of its pages is the report's.
        loader=ChoiceLoader([PackageLoader("cyborgs.gallery", "."), PackageLoader("cyborgs.report", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    rows: list[dict[str, Any]] = []
    for name, row in zip(names, cells, strict=True):
        pictures: list[Picture | None] = []
        for column in columns:
            cell = row.get(column.key)
            # Flat colours and thin borders: JPEG would blur them.
            kind = "JPEG" if column is PHOTO else "PNG"
            pictures.append(None if cell is None else encode(Drawn(cell.title, cell.alt, cell.image, kind)))
        rows.append({"name": name, "pictures": pictures, "told": (row.get(TRUTH.key) or row[CLUSTERS.key]).told})
    text = environment.get_template("gallery.html").render(
        title=printable(title),
        said=[printable(sentence) for sentence in said],
        columns=columns,
        rows=rows,
        swatches=[{"name": name, "colour": f"#{bytes(c).hex()}"} for name, c in zip(SAFE, palette(8), strict=True)],
    )
    return text.encode("utf-8", "backslashreplace")


def _picture(
    names: Sequence[str], cells: Sequence[Mapping[str, _Cell]], columns: Sequence[Column], kind: Format
) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide = 2.4
    heights = [wide * row[PHOTO.key].image.shape[0] / row[PHOTO.key].image.shape[1] for row in cells]
    below, above = 0.2, 0.3  # inches for a photo's name and for the columns' titles
    size = (wide * len(columns) + 0.2, sum(heights) + below * len(cells) + above)
    with mpl.rc_context({"font.size": 8, "pdf.fonttype": 42, "text.parse_math": False}):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(cells), len(columns), squeeze=False, gridspec_kw={"height_ratios": heights})
        mean = sum(heights) / len(cells)
        figure.subplots_adjust(0.01, below / size[1], 0.99, 1 - above / size[1], wspace=0.02, hspace=below / mean)
        for row, name, axes_row in zip(cells, names, grid, strict=True):
            for column, axes in zip(columns, axes_row, strict=True):
                axes.set_axis_off()
                if column.key in row:
                    axes.imshow(row[column.key].image, interpolation="nearest")
            shown = name if len(name) <= 48 else f"…{name[-47:]}"
            axes_row[0].text(0, -0.02, shown, fontsize=6, va="top", transform=axes_row[0].transAxes, color="#555555")
        for column, axes in zip(columns, grid[0], strict=True):
            axes.set_title(column.title, fontsize=9, pad=3)
        buffer = io.BytesIO()
        # No time in the file.
        metadata = {"Software": None} if kind == "png" else {"CreationDate": None, "Creator": None, "Producer": None}
        # Names may hold characters that matplotlib's font lacks: they become boxes, not warnings.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()
