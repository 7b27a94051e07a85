"""A comparison as a plot: a panel for each column, a bar for each encoder, a dot for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unsee_dist.evaluation.comparison import ComparisonRow, benchmarks, columns

MOST = 10  # panels beside each other that can still be read


def plot(rows: Sequence[ComparisonRow], path: Path) -> None:
    """Write a PNG. Bars start at zero, so their lengths can be compared."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = columns(rows)
    if len(named) > MOST:  # a whole benchmark: its groups
        named = [(name, tasks) for name, tasks in named if len(tasks) > 1]
    figure = Figure(figsize=(2.2 + 2.4 * len(named), 0.6 + 0.38 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(named), sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))[::-1]
    for panel, (name, tasks) in zip(panels, named, strict=True):
        for place, row in zip(places, rows, strict=True):
            values = row.mean(tasks)
            if values is None:
                panel.text(0, place, " no score", va="center", color="firebrick", fontsize=8)
                continue
            panel.barh(
                place, np.mean(values), color="steelblue" if row is not rows[0] else "grey", height=0.7
            )
            panel.plot(values, [place] * len(values), "k.", markersize=4)
            panel.text(max(values), place, f" {np.mean(values):.1f}", va="center", fontsize=8)
        panel.set_title(name, fontsize=9)
        panel.set_yticks(places, [row.name for row in rows], fontsize=8)
        panel.margins(x=0.2)
        panel.set_xlim(left=0)
    figure.supxlabel(benchmarks(rows), fontsize=8)
    figure.savefig(path, dpi=120)
