"""A comparison as a picture: a panel a column, a bar an encoder, a dot a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unsee_dist.evaluation.comparison import Row, columns, judged_on

MOST = 10  # panels beside each other that can still be read


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG. Bars start at zero, so their lengths can be compared."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = columns(rows)
    if len(shown) > MOST:  # a whole benchmark: its groups
        shown = [(name, tasks) for name, tasks in shown if len(tasks) > 1]
    figure = Figure(figsize=(2.2 + 2.4 * len(shown), 0.6 + 0.38 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))[::-1]
    for panel, (name, tasks) in zip(panels, shown, strict=True):
        for place, row in zip(places, rows, strict=True):
            scores = row.mean(tasks)
            if scores is None:
                panel.text(0, place, " no score", va="center", color="firebrick", fontsize=8)
                continue
            panel.barh(
                place, np.mean(scores), color="steelblue" if row is not rows[0] else "grey", height=0.7
            )
            panel.plot(scores, [place] * len(scores), "k.", markersize=4)
            panel.text(max(scores), place, f" {np.mean(scores):.1f}", va="center", fontsize=8)
        panel.set_title(name, fontsize=9)
        panel.set_yticks(places, [row.name for row in rows], fontsize=8)
        panel.margins(x=0.2)
        panel.set_xlim(left=0)
    figure.supxlabel(judged_on(rows), fontsize=8)
    figure.savefig(path, dpi=120)
