"""What all protocols have in common: what they are given, what they answer.

A protocol's module has two functions::

    open_data(data: str, settings, seed: int, data_set: str = "") -> Data
    evaluate(backbone: Backbone, data: Data, settings, context: Context) -> Result

``open_data`` reads lists and labels and finds what is missing, before the first forward pass; it knows no backbone, so that
several are judged on the same data. ``evaluate`` leaves the backbone and torch's and numpy's global generators as they were.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, cast

from cyborgs.evaluation.contract import Context, Data, Result
from cyborgs.evaluation.protocols.catalogue import ENTRIES, Entry, Preset, Settings, known
from cyborgs.evaluation.settings.photos import ClassificationSettings
from cyborgs.models.backbone import Backbone


class Module(Protocol):
    """A protocol's module."""

    def open_data(self, data: str, settings: Any, seed: int, data_set: str = "") -> Data:
        """Read what ``data`` names, of the layout ``Entry.data_set``. UserError where it is not of the protocol's layout, or incomplete."""

    def evaluate(self, backbone: Backbone, data: Any, settings: Any, context: Context) -> Result:
        """Judge a backbone, which stays as it was."""


def entry(name: str) -> Entry:
    """The protocol of that name. UserError lists those that there are."""
    return ENTRIES[known(name)]


def module(name: str) -> Module:
    """Its code."""
    return cast(Module, importlib.import_module(f"cyborgs.evaluation.protocols.{entry(name).module}"))


def settings_of(name: str, preset: Preset) -> Settings:
    """The settings of a preset."""
    return entry(name).of(preset)


def is_published(name: str, settings: Settings, counts: Mapping[str, int], share: float = 1.0) -> bool:
    """Are these the settings that somebody published, on as many photos, with all their labels?"""
    found = entry(name)
    return _published_settings(found, settings) and share == 1 and _numbers(counts) == found.photos


def _published_settings(found: Entry, settings: Settings) -> bool:
    if isinstance(settings, ClassificationSettings):
        settings = replace(settings, labels="")  # where the published list lies says nothing
    return bool(found.source) and settings in (found.settings, *found.variants)


def _numbers(counts: Mapping[str, int]) -> tuple[int, int]:
    return counts["train"], counts["test"]


def standing(name: str, preset: Preset, settings: Settings, counts: Mapping[str, int], share: float = 1.0) -> str:
    """One line for whoever would set the figures beside published ones; empty where nothing stands against it.

    Args:
        name: of the protocol.
        preset: which the settings started from.
        settings: as asked for.
        counts: of the opened data.
        share: of the training labels.
    """
    found = entry(name)
    if is_published(name, settings, counts, share):
        return ""
    own = "" if found.source else ", but one of ours"
    if _published_settings(found, settings) and share == 1:
        train, test = _numbers(counts)
        own = (
            f" (its settings on other photos: {train:,} and {test:,}, not {found.photos[0]:,} and {found.photos[1]:,})"
        )
    changed = " with changes" if settings != settings_of(name, preset) else ""
    part = "" if share == 1 else f", {100 * share:g}% of the labels"
    return f"{name}, preset {preset}{changed}{part}: not the paper's protocol{own}."
