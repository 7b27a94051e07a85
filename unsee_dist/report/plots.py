"""A plot as SVG inside a page: matplotlib draws it, and its colours are the page's CSS variables, light, dark or on paper.

matplotlib has no CSS variables, so it draws with colours that nobody uses (PLACEHOLDER plus a number), which are then replaced.
Text stays text, in the page's font. Nothing needs a network or a script.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from markupsafe import Markup

from unsee_dist.masking import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SERIES = 8  # colours; more lines get dashes
SIZE = (4.0, 2.6)  # inches of 72 CSS pixels, at a text of 9.5: it fills a column of 290 to 480 pixels
MOST_POINTS = 300  # of a line: more is averaged, with the range behind it
TICK, LABEL = 16, 44  # characters of a tick's and of an axis's name
PLACEHOLDER = "#5ec0"
NAMES = ("ink", "muted", "grid", "surface", *(f"s{number}" for number in range(1, SERIES + 1)))
INK, MUTED, GRID, SURFACE = (f"{PLACEHOLDER}{number:02x}" for number in range(4))
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))


Mark = Literal["", "o", "|", "x"]
Weight = Literal["weak", "normal", "strong"]


@dataclass(frozen=True)
class Series:
    """A line. place: of its colour, from 0. end: a mark at its last point. weight: weak = thin and dashed."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    place: int = 0
    end: Mark = ""
    weight: Weight = "normal"


class HorizontalLine(NamedTuple):
    """A horizontal line."""

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}" if abs(self.value) >= 10 else f"{self.name} {self.value:.3g}"


class Dot(NamedTuple):
    """A point of its own."""

    x: float
    y: float
    place: int
    mark: Mark = "o"


@dataclass(frozen=True)
class Panel:
    """A plot. unit: below its title. levels: horizontal lines with their names, of what does not change. baselines: the same,
    but one far from the lines is named below the title and not drawn: it would press them flat. x_ticks: places and their
    names, instead of numbers."""

    title: str
    unit: str
    series: Sequence[Series]
    levels: Sequence[HorizontalLine] = ()
    baselines: Sequence[HorizontalLine] = ()
    dots: Sequence[Dot] = ()
    x_label: str = "step"
    x_ticks: Sequence[tuple[float, str]] = ()
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Plot:
    """A drawn plot, for the page."""

    title: str
    unit: str
    svg: Markup


def colour(place: int) -> str:
    return f"{PLACEHOLDER}{place % SERIES + 4:02x}"


def draw(panel: Panel) -> Plot | None:
    """None where there is no finite number to draw."""
    series = [each for each in panel.series if np.isfinite(np.asarray(each.y, dtype=float)).any()]
    if not series and not panel.dots:
        return None

    low, high = _range(panel)
    span = max(high - low, 1e-12)
    far = [each for each in panel.baselines if not low - span < each.value < high + span]
    near = [each for each in panel.baselines if each not in far]

    def fill(axes: Axes) -> None:
        for each in series:
            _line(axes, each)
        for dot in panel.dots:
            _mark(axes, dot)
        if panel.log_y and low > 0:
            axes.set_yscale("log")
            _plain_numbers(axes.yaxis)
        if panel.log_x:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
        if panel.x_ticks:
            axes.set_xticks([at for at, _ in panel.x_ticks], [_cut(name, TICK) for _, name in panel.x_ticks])
            axes.set_xlim(-0.6, len(panel.x_ticks) - 0.4)
        for place, level in enumerate([*panel.levels, *near]):
            _level(axes, level, place)
        axes.set_xlabel(_cut(panel.x_label, LABEL))

    side = [f"; {each} ({'above' if each.value > high else 'below'} the plot)" for each in far]
    unit = panel.unit + "".join(side)
    return Plot(panel.title, unit, svg(fill, f"{panel.title}, {unit}"))


def svg(fill: Callable[[Axes], None], label: str, size: tuple[float, float] = SIZE) -> Markup:
    """A figure with one panel, which `fill` draws into. label: for those who do not see it."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_style(label)):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.grid(True, axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0.03, y=0.1)  # room for the name of a level at the top
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        fill(axes)
        return _inline(figure, label)


def _plain_numbers(axis: Axis) -> None:
    """On a logarithmic axis: 0.01 and no power of ten, which would be mathematics."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda *_: "")


def _style(label: str) -> Any:  # matplotlib's own type lists all 300 keys
    colours = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), MUTED),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), GRID),
    }
    return colours | {
        "svg.fonttype": "none",
        "svg.hashsalt": label,  # names of clip paths, which must differ between the plots of a page
        "text.parse_math": False,  # a name may have dollar signs
        "font.family": "sans-serif",
        "font.size": 9.5,
        "axes.labelsize": 9.5,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "axes.formatter.useoffset": False,
        "axes.formatter.limits": (-4, 6),
        "path.simplify": True,
    }


def _inline(figure: Figure, label: str) -> Markup:
    from xml.sax.saxutils import quoteattr

    file = BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # the same in every plot
    text = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", text, count=1)
    text = text.replace("<svg", f'<svg role="img" aria-label={quoteattr(published(label))}', 1)
    text = re.sub(r"(font: [^;\"]*?px) [^;\"]*", r"\1 var(--font)", text)
    for number, name in enumerate(NAMES):
        text = text.replace(f"{PLACEHOLDER}{number:02x}", f"var(--{name})")
    return Markup(re.sub(r"\n\s*", "\n", text))  # what matplotlib wrote has its text escaped


def _line(axes: Axes, series: Series) -> None:
    x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
    style: dict[str, Any] = {"color": colour(series.place), "linewidth": 1.7, "solid_joinstyle": "round"}
    style["linestyle"] = DASHES[(series.place // SERIES) % len(DASHES)]
    if series.weight == "weak":
        style |= {"linewidth": 1.1, "linestyle": (0, (3, 2))}
    if series.weight == "strong":
        style |= {"linewidth": 2.8, "zorder": 3}
    if len(x) > MOST_POINTS:
        x, y, low, high = _binned(x, y)
        axes.fill_between(x, low, high, color=colour(series.place), alpha=0.2, linewidth=0)
    axes.plot(x, y, **style)
    finite = np.flatnonzero(np.isfinite(y))
    if len(finite) and (series.end or len(finite) == 1):
        _mark(axes, Dot(x[finite[-1]], y[finite[-1]], series.place, series.end or "o"))


def _mark(axes: Axes, dot: Dot) -> None:
    style: dict[str, Any] = {"markersize": 5.5}
    if dot.mark in ("|", "x"):
        style = {"markersize": 8, "markeredgewidth": 1.8}
    axes.plot([dot.x], [dot.y], dot.mark, color=colour(dot.place), zorder=4, **style)


def _binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means of equally many points, and their lowest and highest."""
    parts = [part for part in np.array_split(np.arange(len(x)), MOST_POINTS) if np.isfinite(y[part]).any()]
    bins = [(x[part].mean(), *_mean_and_range(y[part])) for part in parts]
    centre, mean, low, high = np.array(bins).T
    return centre, mean, low, high


def _mean_and_range(values: np.ndarray) -> tuple[float, float, float]:
    finite = values[np.isfinite(values)]
    return float(finite.mean()), float(finite.min()), float(finite.max())


def _level(axes: Axes, level: HorizontalLine, place: int) -> None:
    dashes = DASHES[1 + place % 2]
    axes.axhline(level.value, color=INK, linewidth=1.0, linestyle=dashes, alpha=0.75, zorder=1)
    axes.annotate(
        _cut(str(level), LABEL), (0.99, level.value), xycoords=axes.get_yaxis_transform(), xytext=(0, 2.5),
        textcoords="offset points", ha="right", va="bottom", color=INK, fontsize=9,
    ).set_in_layout(False)  # fmt: skip


def _cut(text: str, most: int) -> str:
    """What fits a plot, masked: the end of a path says more than its beginning."""
    text = published(text)
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _range(panel: Panel) -> tuple[float, float]:
    """Of all that is drawn but baselines."""
    values = [*chain.from_iterable(each.y for each in panel.series), *(dot.y for dot in panel.dots)]
    values += [level.value for level in panel.levels]
    finite = [value for value in values if math.isfinite(value)]
    return min(finite), max(finite)
