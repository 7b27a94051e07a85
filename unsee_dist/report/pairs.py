"""The pairs of a set before and after training: their cosines as boxes, and the interval of the difference.

Shapes: N pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unsee_dist.evaluation.intervals import ScoreDifference, paired_difference
from unsee_dist.metrics.retrieval import Questions
from unsee_dist.metrics.sts import Pairs, spearman_of
from unsee_dist.report.encoders import Embeddings, Sets
from unsee_dist.report.plots import INK, MUTED, Plot, colour, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from unsee_dist.report.sentences import SEED, rows_of

BINS = 5  # of the gold score


@dataclass(frozen=True)
class PairsView:
    """Cosines of a set's pairs before and after. difference: of the Spearman x 100; None for retrieval."""

    name: str
    pairs: int
    plot: Plot
    difference: ScoreDifference | None


def of_pairs(sets: Sets, before: Embeddings, after: Embeddings, run: str, place: int) -> list[PairsView]:
    """A view of each set. place: of the run's colour."""
    views = [_of_sts(name, pairs, before, after, run, place) for name, pairs in sets.sts.items()]
    return views + [
        _of_questions(name, questions, before, after, run, place)
        for name, questions in sets.retrieval.items()
    ]


def _of_sts(
    name: str, pairs: Pairs, before: Embeddings, after: Embeddings, run: str, place: int
) -> PairsView:
    cosines = [_cosines(pairs.first, pairs.second, each) for each in (before, after)]
    low, high = float(pairs.scores.min()), float(pairs.scores.max())
    edges = np.linspace(low, high, BINS + 1)
    bin_N = np.clip(np.digitize(pairs.scores, edges) - 1, 0, BINS - 1)
    labels = [f"{edges[i]:.3g}–{edges[i + 1]:.3g}" for i in range(BINS)]
    grouped = [[cosine_N[bin_N == number] for number in range(BINS)] for cosine_N in cosines]
    rho = [spearman_of(pairs, each) for each in (before, after)]
    unit = f"cosine of {len(pairs.scores):,} pairs by the score that people gave; Spearman x 100: {rho[0]:.2f} → {rho[1]:.2f}"
    gap = paired_difference(cosines[1][None], cosines[0][None], pairs.scores, SEED)
    plot = Plot(
        f"{run}: {name}", unit, svg(_boxes(labels, grouped, place, "score"), f"{run}: {name}, {unit}")
    )
    return PairsView(name, len(pairs.scores), plot, gap)


def _of_questions(
    name: str, questions: Questions, before: Embeddings, after: Embeddings, run: str, place: int
) -> PairsView:
    own = [questions.answers[i] for i in questions.own]
    others = [questions.answers[(i + 1) % len(questions.answers)] for i in questions.own]
    grouped = [
        [_cosines(questions.queries, answers, each) for answers in (own, others)] for each in (before, after)
    ]
    unit = f"cosine of {len(own):,} questions to their answer and to another one's"
    fill = _boxes(["its answer", "another answer"], grouped, place, "")
    return PairsView(name, len(own), Plot(f"{run}: {name}", unit, svg(fill, f"{run}: {name}, {unit}")), None)


def _cosines(first: Sequence[str], second: Sequence[str], embeddings: Embeddings) -> np.ndarray:
    return np.sum(rows_of(first, embeddings) * rows_of(second, embeddings), axis=1)


def _boxes(
    labels: Sequence[str], grouped: Sequence[Sequence[np.ndarray]], place: int, x_label: str
) -> Callable[[Axes], None]:
    """Two boxes a label, before and after: median, quartiles, and whiskers to the 5th and 95th percentile."""

    def fill(axes: Axes) -> None:
        for side, groups in enumerate(grouped):
            shade = (MUTED, colour(place))[side]
            boxes = [(i + (-0.19, 0.19)[side], each) for i, each in enumerate(groups) if len(each)]
            axes.boxplot(
                [each for _, each in boxes],
                positions=[at for at, _ in boxes],
                widths=0.3,
                whis=(5, 95),
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": shade, "edgecolor": shade, "alpha": 0.55},
                medianprops={"color": INK, "linewidth": 1.5},
                whiskerprops={"color": shade},
                capprops={"color": shade},
                manage_ticks=False,
            )
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        axes.set_xlabel(x_label)

    return fill
