"""The demo's scenes: textured objects over textured backgrounds, with exact ground truth.

A class is a material. Grass, gravel, brick, petals, print and stars are cut from photos that scikit-image and
scikit-learn ship in their wheels; nothing is downloaded. The rest is computed. Each piece of material gets
colours, scale, rotation and light of its own; a material leans to a hue, but colour alone does not tell the class.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from cyborgs.data.palette import palette
from cyborgs.errors import UserError
from cyborgs.seeds import numpy_generator

Float = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

CLASSES: Final = ("background", "grass", "gravel", "brick", "petals", "print", "stars", "stripes", "dots", "checks")
"""Name of each class id; 0 is a cloudy wall."""

# Package, file inside it, crop (y0, y1, x0, x1) or None, and pixels of a scene per pixel of the file.
_PHOTOS: Final[dict[str, tuple[str, str, tuple[int, int, int, int] | None, float]]] = {
    "grass": ("skimage", "data/grass.png", None, 0.55),
    "gravel": ("skimage", "data/gravel.png", None, 0.5),
    "brick": ("skimage", "data/brick.png", None, 0.4),
    "petals": ("sklearn", "datasets/images/flower.jpg", (110, 335, 195, 415), 0.5),
    "print": ("skimage", "data/page.png", (45, 150, 10, 365), 0.6),
    "stars": ("skimage", "data/hubble_deep_field.jpg", None, 0.7),
}
_GROUND: Final = ("grass", "gravel", "brick")  # materials that also cover the ground of a scene
_HUE_SPREAD: Final = 0.1
_NOTE: Final = "classes.json"


@dataclass(frozen=True)
class Scenes:
    """Where ``write_scenes`` put what."""

    folder: Path
    photos: Path
    """Folder of the photos, ``scene-0000.jpg`` on."""
    truth: Path
    """Folder of the truth: 8-bit PNGs with a palette, class id per pixel, the photos' names and sizes."""
    train: Path
    """List of "photo truth" lines, paths relative to ``folder``."""
    val: Path
    """The same for the scenes kept for measuring."""
    classes: tuple[str, ...]


def write_scenes(folder: Path | str, count: int = 600, seed: int = 0, size: tuple[int, int] = (192, 144)) -> Scenes:
    """Write ``count`` scenes of ``size`` (width, height), their truth, class names and splits.

    Scene i depends on (seed, i, size) alone. The last sixth is ``splits/val.txt``. A folder that already holds
    these scenes is left as it is. Raises UserError on impossible numbers, and if the folder
    holds anything else.
    """
    if count < 2:
        raise UserError(f"count: need at least 2 scenes (one to train, one to measure), got {count}")
    if min(size) < 64:
        raise UserError(f"size: need at least 64 x 64 pixels, got {size[0]} x {size[1]}")
    folder = Path(folder)
    scenes = Scenes(
        folder, folder / "photos", folder / "truth", folder / "splits/train.txt", folder / "splits/val.txt", CLASSES
    )
    note = {"scenes": count, "seed": seed, "size": list(size), "classes": list(CLASSES)}
    if _already_there(folder, note):
        return scenes
    for part in (scenes.photos, scenes.truth, scenes.train.parent):
        part.mkdir(parents=True, exist_ok=True)
    names = [f"scene-{i:04d}" for i in range(count)]
    for i, name in enumerate(names):
        image, labels = make_scene(i, seed, size)
        (scenes.photos / f"{name}.jpg").write_bytes(_jpeg(image))
        write_label_png(scenes.truth / f"{name}.png", labels)
    held_out = max(1, count // 6)
    for split, part_names in ((scenes.train, names[:-held_out]), (scenes.val, names[-held_out:])):
        split.write_text("".join(f"photos/{name}.jpg truth/{name}.png\n" for name in part_names), encoding="utf-8")
    # Last, so that its presence says that all the rest is complete.
    (folder / _NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return scenes


def _already_there(folder: Path, note: dict[str, Any]) -> bool:
    if not folder.exists():
        return False
    try:
        if json.loads((folder / _NOTE).read_text(encoding="utf-8")) == note:
            return True
        raise UserError(f"{folder}: holds scenes made with other settings. Remove it or name another folder.")
    except (FileNotFoundError, json.JSONDecodeError):
        # An interrupted writing leaves only what would be written again under the same names.
        others = sorted(p.name for p in folder.iterdir() if p.name not in ("photos", "truth", "splits", _NOTE))
        if others:
            raise UserError(f"{folder}: holds {others[0]}, which is no scene. Name another folder.") from None
        return False


def _jpeg(image: UInt8) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=92, colorspace="RGB"))


def write_label_png(path: Path, labels: UInt8) -> None:
    """Write a label map (H, W) as an 8-bit PNG whose palette is ``palette.palette()``."""
    picture = Image.fromarray(labels).convert("L")
    picture.putpalette(palette().tobytes())
    picture.save(path, format="PNG")


def make_scene(index: int, seed: int = 0, size: tuple[int, int] = (192, 144)) -> tuple[UInt8, UInt8]:
    """Scene ``index``: the picture uint8 (H, W, 3) and the class ids uint8 (H, W); size is (width, height)."""
    width, height = size
    rng = numpy_generator(seed, "scenes", index)
    labels = np.zeros((height, width), np.uint8)
    image = _piece(rng, "background", height, width)
    if rng.random() < 0.7:  # a ground, below a wavy horizon or (sometimes) everywhere
        name = _GROUND[rng.integers(len(_GROUND))]
        _paint(image, labels, _ground(rng, height, width), name, rng)
    for _ in range(int(rng.integers(3, 7))):
        name = CLASSES[rng.integers(1, len(CLASSES))]
        _paint(image, labels, _shape(rng, height, width), name, rng)
    image *= _light(rng, height, width, 0.25)[..., None]
    image[:] = cv2.GaussianBlur(image, (3, 3), float(rng.uniform(0.3, 0.7)))
    image += rng.normal(0.0, rng.uniform(0.005, 0.02), image.shape).astype(np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), labels


def _paint(image: Float, labels: UInt8, mask: NDArray[np.bool_], name: str, rng: np.random.Generator) -> None:
    height, width = labels.shape
    piece = _piece(rng, name, height, width) * _light(rng, height, width, 0.3)[..., None]
    image[mask] = piece[mask]
    labels[mask] = CLASSES.index(name)


def _ground(rng: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    horizon = height * rng.uniform(-0.3, 0.75)
    x = np.arange(width) / width
    line = horizon + height * (
        rng.uniform(-0.15, 0.15) * x + 0.04 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * x + rng.random()))
    )
    below: NDArray[np.bool_] = np.arange(height)[:, None] >= line[None, :]
    return below


def _shape(rng: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    """A disc, ellipse, polygon, box or blob somewhere, possibly cut by the border; bool (H, W)."""
    radius = min(height, width) * rng.uniform(0.16, 0.38)
    centre = np.array([rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95) * height])
    kind = rng.integers(5)
    corners = int(rng.integers(3, 8)) if kind == 2 else 4 if kind == 3 else 48
    angle = 2 * np.pi * np.arange(corners) / corners
    r = np.full(corners, 1.0)
    if kind == 2:
        angle = angle + rng.uniform(-0.25, 0.25, corners) * 2 * np.pi / corners
        r = rng.uniform(0.8, 1.25, corners)
    elif kind == 4:
        for wave in (2, 3, 5):
            r += rng.uniform(0.0, 0.5 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    stretch = 1.0 if kind == 0 else rng.uniform(0.6, 1.0)
    points = radius * r[:, None] * np.stack([np.cos(angle), np.sin(angle) * stretch], 1)
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.round(points @ rotation + centre).astype(np.int32)], (1,))
    return canvas.astype(bool)


def _light(rng: np.random.Generator, height: int, width: int, strength: float) -> Float:
    """A gradient of brightness around 1, in a direction of its own; float32 (H, W)."""
    turn = rng.uniform(0, 2 * np.pi)
    y, x = np.linspace(-0.5, 0.5, height), np.linspace(-0.5, 0.5, width)
    slope = rng.uniform(0, 2 * strength)
    light: Float = (1 + slope * (np.sin(turn) * y[:, None] + np.cos(turn) * x[None, :])).astype(np.float32)
    return light


def _piece(rng: np.random.Generator, name: str, height: int, width: int) -> Float:
    """Material ``name`` in colours of its own: float32 (H, W, 3), about 0..1."""
    grey = _photo_grey(rng, name, height, width) if name in _PHOTOS else _computed_grey(rng, name, height, width)
    dark, bright = rng.uniform(0.1, 0.3), rng.uniform(0.65, 0.9)
    # A material leans to a hue, as real ones do, but its pieces spread over a third of the circle; walls are pale.
    hue = CLASSES.index(name) / len(CLASSES) + rng.normal(0, _HUE_SPREAD)
    strength = (0.0, 0.2) if name == "background" else (0.15, 0.5)
    colours = [_colour(hue + rng.normal(0, 0.05), rng.uniform(*strength), level) for level in (dark, bright)]
    if name not in _PHOTOS and rng.random() < 0.5:
        colours.reverse()
    share = np.clip(0.5 + grey * rng.uniform(0.25, 0.4), 0, 1)[..., None]
    out: Float = (colours[0] + share * (colours[1] - colours[0])).astype(np.float32)
    return out


def _colour(hue: float, saturation: float, level: float) -> Float:
    """A colour whose brightest channel is ``level``; float32 (3,)."""
    wheel = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    colour: Float = (level * (1 - saturation + saturation * wheel)).astype(np.float32)
    return colour


def _photo_grey(rng: np.random.Generator, name: str, height: int, width: int) -> Float:
    """A turned, scaled cut of a material's photo, mirrored beyond its borders; zero mean, unit deviation."""
    source = _photo(name)
    scale = _PHOTOS[name][3] * float(np.exp(rng.uniform(-0.3, 0.3)))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(0, 360)), scale)
    middle = rng.uniform(0.25, 0.75, 2) * source.shape[::-1]
    matrix[:, 2] += np.array([width / 2, height / 2]) - matrix @ np.array([*middle, 1.0])
    return np.asarray(
        cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
        np.float32,
    )


@lru_cache(maxsize=len(_PHOTOS))
def _photo(name: str) -> Float:
    package, inside, crop, scale = _PHOTOS[name]
    # The file itself, not the package's loader: that one downloads what its wheel lacks.
    path = Path(str(import_module(package).__file__)).parent / inside
    if not path.exists():
        raise FileNotFoundError(f"{path}: the demo's scenes need this photo of {package}'s wheel. Reinstall {package}.")
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("L"))
    if crop is not None:
        picture = picture[crop[0] : crop[1], crop[2] : crop[3]]
    # Against aliasing when it is made smaller; and the photo's own light is not the material's.
    smooth = np.asarray(cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.45 / scale), np.float32)
    grey = smooth - np.asarray(cv2.GaussianBlur(smooth, (0, 0), 40), np.float32)
    out: Float = np.clip((grey - grey.mean()) / grey.std(), -2.5, 2.5).astype(np.float32)
    return out


def _computed_grey(rng: np.random.Generator, name: str, height: int, width: int) -> Float:
    """Clouds, or a slightly bent regular pattern; about zero mean and unit deviation."""
    if name == "background":
        return _clouds(rng, height, width, (3, 6, 12))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    bend = 2.5 * _clouds(rng, height, width, (3,))
    turn = rng.uniform(0, 2 * np.pi)
    period = rng.uniform(8, 13)
    u = (np.cos(turn) * x + np.sin(turn) * y + bend) / period + rng.random()
    v = (-np.sin(turn) * x + np.cos(turn) * y) / period + rng.random()
    sharp = rng.uniform(2, 5)
    if name == "stripes":
        wave = np.sin(2 * np.pi * u) + rng.uniform(-0.3, 0.3)
    elif name == "checks":
        wave = 2 * np.sin(np.pi * u) * np.sin(np.pi * v)
    else:  # dots, every second row shifted by half a period
        du = (u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5
        dv = v % 1 - 0.5
        wave = 5 * (rng.uniform(0.25, 0.35) - np.sqrt(du * du + dv * dv))
    out: Float = np.tanh(sharp * wave).astype(np.float32)
    return out


def _clouds(rng: np.random.Generator, height: int, width: int, cells: tuple[int, ...]) -> Float:
    total = np.zeros((height, width), np.float32)
    for k, n in enumerate(cells):
        coarse = rng.normal(0, 1, (n + 1, n * 4 // 3 + 1)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.6**k)
    return total
