"""Which methods there are: those of this package, and those that other distributions bring. No torch here.

A method is one folder: ``settings.py``, without torch, names its settings' class as ``SETTINGS``, and ``method.py`` the
network's as ``METHOD``. Another distribution names its folder in its entry points (docs/add_a_method.md).
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from cyborgs.errors import UserError
from cyborgs.methods.settings import MethodConfig

if TYPE_CHECKING:
    from cyborgs.methods.method import Method

METHODS: dict[str, str] = {
    "cyborgs": "cyborgs.methods.cyborgs",
    "byol": "cyborgs.methods.byol",
}
"""Name -> module of its folder. The first is what a recipe that names no method trains."""

GROUP: Final = "cyborgs.methods"
"""Group of entry points of other distributions: ``name = module of the folder``."""


def names() -> list[str]:
    """Every method's name, those of this package first."""
    return list(dict.fromkeys([*METHODS, *sorted(point.name for point in _others())]))


def settings_of(name: str) -> type[MethodConfig]:
    """The class of a method's settings.

    Raises:
        UserError: there is no such method, two distributions bring it, or it cannot be loaded; names the distribution.
    """
    found: type[MethodConfig] = _load(name, "settings", "SETTINGS", MethodConfig)
    return found


def method_class(name: str) -> type[Method]:
    """The class of a method's network. Loads torch.

    Raises:
        UserError: as ``settings_of``.
    """
    from cyborgs.methods.method import Method

    found: type[Method] = _load(name, "method", "METHOD", Method)
    return found


def name_of(settings: MethodConfig) -> str:
    """The name of the method whose folder these settings come from.

    Raises:
        UserError: the folder is not registered.
    """
    home = type(settings).__module__.removesuffix(".settings")
    for name, module in METHODS.items():
        if module == home:
            return name
    for point in _others():
        if point.value == home:
            return point.name
    raise UserError(
        f"{type(settings).__name__}: the folder {home} is not registered. Name it in the entry points {GROUP!r} of its "
        "distribution (docs/add_a_method.md), and install that."
    )


def default_settings() -> MethodConfig:
    """Those of a recipe that names no method."""
    return settings_of(next(iter(METHODS)))()


def _others() -> list[EntryPoint]:
    """What other distributions bring. Read when it is asked for: it takes a look at each that is installed."""
    return list(entry_points(group=GROUP))


def _load(name: str, file: str, attribute: str, base: type) -> Any:
    points = [point for point in _others() if point.name == name]
    brings = [f"{point.dist.name if point.dist else 'an unknown distribution'} ({point.value})" for point in points]
    if name in METHODS:
        if points:
            raise UserError(
                f"method {name!r}: {brings[0]} brings a method of a name that is taken. Rename it in that "
                f"distribution's entry points {GROUP!r}, or uninstall it."
            )
        return getattr(importlib.import_module(f"{METHODS[name]}.{file}"), attribute)
    if not points:
        raise UserError(f"no method is named {name!r}. There are: {', '.join(names())}.")
    if len({point.value for point in points}) > 1:
        raise UserError(f"method {name!r}: {' and '.join(brings)} bring it. Uninstall one of them.")
    module = f"{points[0].value}.{file}"
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # of strangers: anything
        raise UserError(
            f"method {name!r} of {brings[0]}: {module} cannot be loaded ({type(error).__name__}: {error}). Mend that "
            "distribution, or uninstall it."
        ) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"method {name!r} of {brings[0]}: {module}.{attribute} is no subclass of {base.__name__}.")
    return found
