"""The figures of an experiment. A colour is an arm, or a value of the setting that groups the arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from unsee_dist.metrics.names import EVALUATION, SPECTRUM, STEP, dev
from unsee_dist.report.curves import TITLES
from unsee_dist.report.plots import Dot, HorizontalLine, Panel, Plot, Series, draw
from unsee_dist.reproduce.experiment import Chart
from unsee_dist.reproduce.results import Results, UnitResult, arms_of, name_of

COLOURS = ("blue", "orange", "green", "purple", "olive", "teal", "red", "violet")  # --s1 to --s8 of the page
Points = dict[float, list[float]]  # of all seeds, by x


def charts(results: Results) -> list[Plot]:
    """What can be drawn of the experiment's charts; `arms` has a figure a score."""
    drawers: Mapping[str, Callable[[Results, Chart], Iterable[Panel]]] = {
        "steps": _over_steps,
        "arms": _by_arm,
        "setting": _over_setting,
        "spectrum": _spectrum,
    }
    panels = [panel for chart in results.experiment.charts for panel in drawers[chart.kind](results, chart)]
    return [plot for panel in panels if (plot := draw(panel)) is not None]


def _over_steps(results: Results, chart: Chart) -> Iterable[Panel]:
    metric = chart.metric or results.deciding
    if metric is None:
        return
    series: list[Series] = []
    for place, arm in enumerate(arms_of(results)):
        points: Points = {}
        for each in results.of(arm):
            lines = [(line[STEP], line[metric]) for line in each.evaluations if _is_finite(line, metric)]
            if lines and len(results.of(arm)) > 1:
                x, y = zip(*lines, strict=True)
                series.append(Series(each.unit.name, x, y, place, weight="weak"))
            for step, value in lines:
                points.setdefault(step, []).append(value)
        series += _mean_line(arm, points, place, len(results.of(arm)))
    yield Panel(_title(metric), EVALUATION.get(metric, metric), series)


def _by_arm(results: Results, chart: Chart) -> Iterable[Panel]:
    arms = arms_of(results)
    for score in [chart.metric] if chart.metric else results.scores:
        dots = [
            Dot(x, value, x) for x, arm in enumerate(arms) for value in results.values(arm, score).values()
        ]
        before = sorted({round(value, 6) for arm in arms for value in results.before(arm, score).values()})
        levels = [HorizontalLine("before training", value) for value in before] if len(before) == 1 else []
        ticks = [(float(x), "") for x in range(len(arms))]  # their names are in the legend
        title = f"{name_of(score)}, a dot a seed"
        yield Panel(title, _unit(results, score), (), levels, dots=dots, x_label="arm", x_ticks=ticks)


def _over_setting(results: Results, chart: Chart) -> Iterable[Panel]:
    """Lines of means, a group each, in the dashes and colours of their places; dots are seeds."""
    metric = chart.metric or results.deciding
    if metric is None:
        return
    groups: dict[str, Points] = {}
    dots: list[Dot] = []
    for each in results.units:
        if _is_finite(each.last, metric):
            x, name = float(str(each.settings[chart.key])), _group(each, chart.group)
            groups.setdefault(name, {}).setdefault(x, []).append(each.last[metric])
            dots.append(Dot(x, each.last[metric], list(groups).index(name)))
    series = [line for place, name in enumerate(groups) for line in _mean_line(name, groups[name], place, 1)]
    before = {round(each.before[metric], 6) for each in results.units if _is_finite(each.before, metric)}
    levels = [HorizontalLine("before training", before.pop())] if len(before) == 1 else []
    colours = "; ".join(f"{COLOURS[place % len(COLOURS)]}: {name}" for place, name in enumerate(groups))
    unit = f"{EVALUATION.get(metric, metric)}. {colours}"
    yield Panel(
        f"{_title(metric)} at the end", unit, series, levels, dots=dots, x_label=chart.key, log_x=True
    )


def _spectrum(results: Results, _: Chart) -> Iterable[Panel]:
    head = dev(f"{SPECTRUM}/")
    series = []
    for place, arm in enumerate(arms_of(results)):
        points: Points = {}
        for each in results.of(arm):
            for name, value in each.last.items():
                if name.startswith(head) and math.isfinite(value) and value > 0:
                    points.setdefault(float(name.removeprefix(head)), []).append(value)
        series += _mean_line(arm, points, place, 1)
    unit = "share of the k-th largest eigenvalue at the end, mean over seeds"
    yield Panel("Spectrum", unit, series, x_label="k", log_x=True, log_y=True)


def _group(result: UnitResult, settings: Sequence[str]) -> str:
    """ "target.kind ema, train.batch 32" """
    return ", ".join(f"{setting} {result.settings.get(setting)}" for setting in settings)


def _mean_line(name: str, points: Points, place: int, seeds: int) -> list[Series]:
    if not points:
        return []
    x: Sequence[float] = sorted(points)
    y = [float(np.mean(points[each])) for each in x]
    return [Series(name, x, y, place, weight="strong" if seeds > 1 else "normal")]


def _is_finite(line: Mapping[str, float], metric: str) -> bool:
    return math.isfinite(line.get(metric, math.nan))


def _title(metric: str) -> str:
    return TITLES.get(metric, metric)


def _unit(results: Results, score: str) -> str:
    metrics = {
        f"{task.metric} x 100" for each in results.units for task in each.tasks.values() if task.task == score
    }
    return EVALUATION.get(score) or ", ".join(sorted(metrics)) or score
