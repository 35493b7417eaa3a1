"""Sentences that say what the figures say, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cyborgs.report.facts import warnings_of, watched
from cyborgs.report.history import History


def _known(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _change(before: float, after: float) -> str:
    """What happened between two shares, at the precision that the page prints."""
    a, b = f"{before:.3f}", f"{after:.3f}"
    if a == b:
        return f"stayed at {a}"
    return f"rose from {a} to {b}" if after > before else f"did not rise: it fell from {a} to {b}"


def _beside(rows: Iterable[Mapping[str, Any]], key: str, value: float) -> str:
    """ "; a 5 x 5 grid has 0.100, which is lower" for each baseline."""
    parts = []
    for row in rows:
        if row.get("baseline") and _known(row.get(key)):
            a, b = f"{row[key]:.3f}", f"{value:.3f}"
            relation = "the same" if a == b else "lower" if row[key] < value else "higher"
            parts.append(f"; {row['name']}: {a}, which is {relation}")
    return "".join(parts)


def _quality_sentences(quality: Mapping[str, Any]) -> list[str]:
    rows = quality["rows"]
    sentences = []
    for key, subject in (
        ("miou", "One clustering of all scenes, matched to the classes: mIoU"),
        ("best_overlap", "Best overlap of the stored masks with the true regions, mean over photos: it"),
    ):
        measured = [r for r in rows if not r.get("baseline") and _known(r.get(key))]
        if len(measured) >= 2:
            first, last = measured[0], measured[-1]
            sentences.append(
                f"{subject} {_change(first[key], last[key])} ({first['name']} to {last['name']})"
                f"{_beside(rows, key, last[key])}."
            )
    return sentences


def probe_rows(probe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each (weights, layers): means over seeds, and the largest distance of a seed from the mean."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in probe["rows"]:
        groups.setdefault((row["name"], " + ".join(row["layers"])), []).append(row)
    out = []
    for (name, layers), members in groups.items():
        values = [float(m["miou"]) for m in members]
        mean = sum(values) / len(values)
        out.append(
            {
                "name": name,
                "layers": layers,
                "seeds": len(members),
                "miou": mean,
                "spread": max(abs(v - mean) for v in values) if len(values) > 1 else None,
                "accuracy": sum(float(m["accuracy"]) for m in members) / len(members),
                "baseline": any(m.get("baseline") for m in members),
            }
        )
    return out


def _probe_sentences(probe: Mapping[str, Any]) -> list[str]:
    sentences = []
    rows = probe_rows(probe)
    for layers in dict.fromkeys(row["layers"] for row in rows):
        group = [r for r in rows if r["layers"] == layers and _known(r["miou"])]
        start = next((r for r in group if r["baseline"]), group[0] if group else None)
        others = [r for r in group if r is not start]
        if start is not None and others:
            compared = ", ".join(f"{r['miou']:.3f} with {r['name']}" for r in others)
            best = max(r["miou"] for r in others)
            verdict = (
                "no difference"
                if f"{best:.3f}" == f"{start['miou']:.3f}"
                else f"{abs(best - start['miou']):.3f} {'higher' if best > start['miou'] else 'lower'}"
            )
            sentences.append(
                f"Linear probe on {layers}: mIoU {start['miou']:.3f} with {start['name']}, {compared}: {verdict}."
            )
    return sentences


def _loss_sentences(history: History) -> list[str]:
    sentences = []
    for key in sorted(k for k in history.series if k.startswith("loss/")):
        values = [v for v in history.series[key].values if math.isfinite(v)]
        if len(values) > 1:
            tenth = max(1, len(values) // 10)
            before, after = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
            sentences.append(
                f"The {key.removeprefix('loss/')} loss was {before:.3f} at first and {after:.3f} at last "
                f"(means of {tenth} logged step{'s' if tenth > 1 else ''})."
            )
    return sentences


def _monitor_sentences(history: History) -> list[str]:
    sentences = []
    for key, subject in (
        ("knn/top1", "The vote of the nearest labelled photos: accuracy"),
        ("probe/miou", "The linear segmentation probe of the labelled photos: mIoU"),
    ):
        values = list(history.monitors[key].values) if key in history.monitors else []
        if len(values) > 1 and _known(values[0]) and _known(values[-1]):
            sentences.append(f"{subject} {_change(values[0], values[-1])}, first to last measurement.")
    heads = {key.partition("/")[0]: key for key in reversed(history.monitors) if "/" in key}
    for protocol, key in heads.items():  # of a protocol, the main figure comes first
        values = list(history.monitors[key].values)
        told = protocol in ("knn", "probe", "neighbours")
        if not told and len(values) > 1 and _known(values[0]) and _known(values[-1]):
            figure = key.partition("/")[2]
            sentences.append(
                f"{protocol} (preset small), {figure}: {_change(values[0], values[-1])}, first to last measurement."
            )
    return sentences


def summary(quality: Mapping[str, Any] | None, probe: Mapping[str, Any] | None, history: History) -> list[str]:
    """What was measured, in sentences: quality, probe and monitors where there are any, else the losses."""
    sentences = (_quality_sentences(quality) if quality else []) + (_probe_sentences(probe) if probe else [])
    return (sentences + _monitor_sentences(history)) or _loss_sentences(history)


def health_sentence(history: History) -> str:
    """Whether a warning was given, in one sentence."""
    began, active = len([e for e in history.events if e.get("state") != "ends"]), warnings_of(history)[1]
    began += history.events_left_out
    if active:
        more = f" (and {len(active) - 1} more)" if len(active) > 1 else ""
        return f"Health warning: {active[-1]}{more}"
    if began:
        return f"{began} health warning{'s were' if began > 1 else ' was'} given, and ended."
    return "No health warning was given." if watched(history) else ""
