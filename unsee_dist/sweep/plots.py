"""Pictures of a sweep: learning curves by rung, parallel coordinates, importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsee_dist.files.atomic import write_file
from unsee_dist.metrics.names import STEP
from unsee_dist.sweep.ledger import BAD, LedgerRow, best
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.space import Axis
from unsee_dist.sweep.trial import evaluations, trial_folder, untrained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120
ABSENT = -0.08
MOST_LEVELS = 3


def curves(sweep: Sweep, rows: Sequence[LedgerRow], rungs: Sequence[int], path: Path) -> None:
    """The metric of every trial over its steps; a colour an objective where it varies, a dotted line a rung, dashes a trial
    that was stopped. A level is the encoder before training."""
    figure = _figure(8, 4.5)
    panel = figure.subplots()
    metric, top = sweep.settings.metric, best(rows, sweep.settings.mode)
    by = next((axis.key for axis in sweep.space.axes if axis.key == "objective.name"), None)
    kinds = list(dict.fromkeys(str(row.point.get(by)) for row in rows)) if by else [""]
    for row in rows:
        lines = evaluations(trial_folder(sweep.folder, row.trial))
        points = [(line[STEP], line[metric]) for line in lines if math.isfinite(line.get(metric, math.nan))]
        if not points:
            continue
        kind = str(row.point.get(by)) if by else ""
        style: dict[str, Any] = {
            "color": f"C{kinds.index(kind)}",
            "label": kind,
            "alpha": 0.8,
            "linewidth": 1.2,
        }
        if row.status == "stopped":
            style |= {"linestyle": "--", "alpha": 0.6}
        if top is not None and row.trial == top.trial:
            style |= {"linewidth": 2.8, "alpha": 1.0, "zorder": 3}
        panel.plot(*zip(*points, strict=True), **style)
        mark = "x" if row.status in BAD else "o" if row.status == "complete" else "|"
        panel.plot(*points[-1], mark, color=style["color"], markersize=7)
    for value in levels(sweep, rows, metric):
        panel.axhline(value, color="black", linestyle="--", linewidth=1)
        panel.annotate(f"before training {value:.4g}", (1, value), xycoords=("axes fraction", "data"), fontsize=8,
                       xytext=(-3, 3), textcoords="offset points", ha="right")  # fmt: skip
    for rung in rungs:
        panel.axvline(rung, color="grey", linestyle=":", linewidth=1)
        panel.annotate(f"rung {rung}", (rung, 1), xycoords=("data", "axes fraction"), fontsize=8,
                       xytext=(3, -10), textcoords="offset points", color="grey")  # fmt: skip
    handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    if by:
        panel.legend(handles.values(), handles.keys(), fontsize=8)
    panel.set_xlabel("step (● complete, dashes and | stopped, × broken; the best is thick)")
    panel.set_ylabel(metric)
    _save(figure, path)


def parallel(sweep: Sweep, rows: Sequence[LedgerRow], path: Path) -> None:
    """A vertical axis a setting, a line a trial, coloured by its score, dashed where it was stopped; the last axis is the
    score, with that before training."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    sound = [row for row in rows if row.score is not None and row.status not in BAD]
    axes, scores = sweep.space.axes, [row.score or 0.0 for row in sound]
    before = levels(sweep, rows, sweep.settings.metric)
    figure = _figure(2.0 + 1.9 * len(axes), 4.2)
    panel = figure.subplots()
    low, high = min([*scores, *before]), max([*scores, *before])
    shade = Normalize(low, high if high > low else low + 1)
    order = sorted(sound, key=lambda row: row.score or 0.0, reverse=sweep.settings.mode == "min")
    for row in order:  # the best is drawn last, on top
        heights = [_height(axis, row.point) for axis in axes] + [float(shade(row.score or 0.0))]
        dashes = "--" if row.status == "stopped" else "-"
        shaded = colormaps["viridis"](float(shade(row.score or 0.0)))
        panel.plot(heights, color=shaded, linewidth=1.6, alpha=0.85, linestyle=dashes)
    for place, axis in enumerate(axes):
        _ticks(panel, place, _scale(axis) + ([(ABSENT, "none")] if axis.when else []))
    _ticks(panel, len(axes), [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")])
    for value in before:
        panel.plot([len(axes) - 0.06, len(axes) + 0.06], [shade(value)] * 2, color="black", linewidth=1.6)
        panel.annotate("before", (len(axes) - 0.08, float(shade(value))), fontsize=7, va="center", ha="right")
    panel.set_xticks(range(len(axes) + 1), [*(axis.key for axis in axes), sweep.settings.metric], fontsize=8)
    panel.set_yticks([])
    panel.set_ylim(-0.14, 1.06)
    panel.set_xlim(-0.3, len(axes) + 0.4)
    for side in ("top", "left", "right", "bottom"):
        panel.spines[side].set_visible(False)
    _save(figure, path)


def levels(sweep: Sweep, rows: Sequence[LedgerRow], key: str) -> list[float]:
    """The score before training, or several where trials begin with different encoders; [] where none was measured."""
    values = (untrained(trial_folder(sweep.folder, row.trial)).get(key, math.nan) for row in rows)
    return sorted({round(value, 4) for value in values if math.isfinite(value)})[:MOST_LEVELS]


def importance(weights: Mapping[str, float], metric: str, path: Path) -> None:
    """A bar a setting: the share of the variance of the metric that it explains."""
    figure = _figure(6, 0.9 + 0.4 * len(weights))
    panel = figure.subplots()
    names = list(weights)[::-1]
    panel.barh(names, [weights[name] for name in names], color="steelblue", height=0.6)
    for place, name in enumerate(names):
        panel.text(weights[name], place, f" {weights[name]:.0%}", va="center", fontsize=8)
    panel.set_xlim(0, 1.1)
    panel.set_xlabel(f"share of the variance of {metric} (fANOVA)", fontsize=8)
    panel.tick_params(labelsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, dpi=DPI, format=path.suffix[1:])
    write_file(path, picture.getvalue())


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _height(axis: Axis, point: Mapping[str, Any]) -> float:
    """The place of a value on its axis, 0 to 1; below it when the trial has none."""
    if axis.key not in point:
        return ABSENT
    value = point[axis.key]
    if axis.kind == "choice":
        return axis.values.index(value) / max(1, len(axis.values) - 1)
    low, high = axis.values
    if axis.kind == "loguniform":
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _scale(axis: Axis) -> list[tuple[float, str]]:
    if axis.kind == "choice":
        return [(_height(axis, {axis.key: value}), str(value)) for value in axis.values]
    low, high = axis.values
    middle = math.sqrt(low * high) if axis.kind == "loguniform" else (low + high) / 2
    return [(height, f"{value:.2g}") for height, value in ((0.0, low), (0.5, middle), (1.0, high))]


def _ticks(panel: Any, place: float, ticks: Sequence[tuple[float, str]]) -> None:
    panel.plot([place, place], [0, 1], color="black", linewidth=0.8, zorder=0)
    for height, text in ticks:
        panel.annotate(text, (place + 0.03, height), fontsize=7, va="center", zorder=4,
                       bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5})  # fmt: skip
