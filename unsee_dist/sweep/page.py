"""The page of a sweep: its best trial against the untrained encoder and TF-IDF, all trials, and what each setting did."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from unsee_dist.config.kinds import flat, shown
from unsee_dist.errors import TransientError, UserError
from unsee_dist.evaluation.development import tfidf_baseline
from unsee_dist.evaluation.question_files import load_question_sets
from unsee_dist.evaluation.sts_files import load_sets
from unsee_dist.metrics.names import COLLAPSED, DISTANCE, EFFECTIVE_RANK, MRR, STEP, STS, UNIFORMITY, dev
from unsee_dist.metrics.verdict import DIGITS
from unsee_dist.report.curves import TITLES
from unsee_dist.report.facts import Next, Table
from unsee_dist.report.headline import Tile, Tone, Verdict
from unsee_dist.report.page import Bars, Commands, Grid, Page, PageBlock, PageSection, Plots, Words
from unsee_dist.report.plots import Dot, HorizontalLine, Mark, Panel, Series, Weight, draw
from unsee_dist.sweep import ledger
from unsee_dist.sweep.ledger import BAD, LedgerRow
from unsee_dist.sweep.plots import levels
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.space import OF_A_TRIAL, Axis
from unsee_dist.sweep.trial import evaluations, trial_folder
from unsee_dist.tracking.metrics_file import Line

# Colour, mark and words of a trial; the best one is the first.
BEST, COMPLETE, STOPPED, BROKEN, OTHER = range(5)
PLACES = (0, 2, 4, 6, 7)
LEGEND = (
    "best trial (thick)",
    "complete (●)",
    "stopped by the scheduler (dashed, |)",
    "broken or failed (dashed, ×)",
    "waiting or running",
)
MARKS: tuple[Mark, ...] = ("o", "o", "|", "x", "")
ALSO = (dev(STS), dev(MRR), dev(EFFECTIVE_RANK), dev(UNIFORMITY), dev(DISTANCE))


def page(sweep: Sweep, rows: Sequence[LedgerRow], weights: Mapping[str, float]) -> Page:
    """weights: the share of the variance that a setting explains."""
    top, metric = ledger.best(rows, sweep.settings.mode), sweep.settings.metric
    lines = {row.trial: evaluations(trial_folder(sweep.folder, row.trial)) for row in rows}
    baseline, problems = _baseline(sweep)
    keys = dict.fromkeys((metric, *ALSO))
    drawn = [plot for key in keys if (plot := draw(_curves(sweep, rows, lines, key, baseline)))]
    axes = [plot for axis in sweep.space.axes if (plot := draw(_of_axis(sweep, rows, axis, baseline)))]
    plots = [plot for plot in [draw(_found(sweep, rows, baseline))] if plot]
    nothing: list[PageBlock] = [Words(["No trial has been evaluated yet."])]
    sections = [
        PageSection(
            "Trials over their steps",
            [Plots(drawn)] if drawn else nothing,
            "Dots and bars are where a trial ended.",
        ),
        PageSection(
            "What the settings did",
            [Plots([*plots, *axes])] if plots else nothing,
            "Each trial's best score. A stopped trial was given up early: its score is of fewer steps.",
        ),
    ]
    if weights:
        note = f"Share of the variance of {metric} that a setting explains (fANOVA)."
        sections.append(PageSection("Which settings mattered", [Bars(list(weights.items()))], note))
    sections.append(PageSection("All trials", _table(sweep, rows)))
    if top is not None:
        grid = Grid(_settings(sweep, top), codes=True)
        sections.append(
            PageSection("Settings of the best trial", [grid], "Bold: what the sweep varied.", narrow=True)
        )
    sections.append(PageSection("Next", [Commands(_next(sweep, rows, top))], narrow=top is not None))
    kinds = sorted({_kind(row, top) for row in rows})
    legend = [(PLACES[kind], LEGEND[kind]) for kind in kinds]
    verdict = _verdict(sweep, rows, top, baseline, problems)
    return Page(sweep.settings.name, str(sweep.folder.absolute()), verdict, sections, legend)


def _kind(row: LedgerRow, top: LedgerRow | None) -> int:
    if top is not None and row.trial == top.trial:
        return BEST
    if row.status in BAD:
        return BROKEN
    return {"complete": COMPLETE, "stopped": STOPPED}.get(row.status, OTHER)


def _verdict(
    sweep: Sweep,
    rows: Sequence[LedgerRow],
    top: LedgerRow | None,
    baseline: Mapping[str, float],
    problems: Sequence[str],
) -> Verdict:
    metric, sign = sweep.settings.metric, 1 if sweep.settings.mode == "max" else -1
    digits, before = DIGITS.get(metric, 3), levels(sweep, rows, metric)
    counts = {status: sum(row.status == status for row in rows) for status in get_args(ledger.TrialStatus)}
    words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    sentences = [f"{len(rows)} of {sweep.trials} trials: {words or 'none yet'}.", *problems]
    if top is None or top.score is None:
        return Verdict("No trial has a score yet", "none", (), sentences)
    tiles = [Tile("Best trial", f"{top.score:.{digits}f}", f"trial {top.number}, step {top.step}")]
    headline = f"Best: {metric} {top.score:.{digits}f}, trial {top.number}"
    tone: Tone = "none"
    if before:
        gain = top.score - before[-1 if sign > 0 else 0]
        tone = "good" if sign * gain > 0 else "bad"
        headline += f", {gain:+.{digits}f} against before training"
        tiles.append(Tile("Before training", " / ".join(f"{value:.{digits}f}" for value in before), metric))
        if tone == "bad":
            sentences.insert(0, "No trial is better than the encoder it began with.")
    else:
        sentences.append("Nothing was measured before training.")
    if metric in baseline:
        against = top.score - baseline[metric]
        kind: Tone = "good" if sign * against > 0 else "bad"
        tiles.append(
            Tile("TF-IDF", f"{baseline[metric]:.{digits}f}", f"the best: {against:+.{digits}f}", kind)
        )
    unfinished = [row for row in rows if row.status == "stopped"]
    if top in unfinished:
        sentences.append(f"The best trial was itself stopped after {top.reached} of {sweep.steps} steps.")
    if len(rows) > 1:
        sentences.append(
            "The best of many trials is lucky, too: unsee sweep with --confirm 3 trains it and the base on other seeds."
        )
    return Verdict(headline, tone, tiles, sentences)


def _with_levels(
    panel: Panel, sweep: Sweep, rows: Sequence[LedgerRow], key: str, baseline: Mapping[str, float]
) -> Panel:
    """With the score before training, and TF-IDF's."""
    before = [HorizontalLine("before", value) for value in levels(sweep, rows, key)]
    baselines = [HorizontalLine("TF-IDF", baseline[key])] if key in baseline else []
    return replace(panel, levels=before, baselines=baselines)


def _curves(
    sweep: Sweep,
    rows: Sequence[LedgerRow],
    lines: Mapping[str, Sequence[Line]],
    key: str,
    baseline: Mapping[str, float],
) -> Panel:
    top, series = ledger.best(rows, sweep.settings.mode), []
    for row in sorted(rows, key=lambda row: -_kind(row, top)):  # the best last, on top
        points = [
            (line[STEP], line[key]) for line in lines[row.trial] if math.isfinite(line.get(key, math.nan))
        ]
        if points:
            kind = _kind(row, top)
            x, y = zip(*points, strict=True)
            weight: Weight = (
                "strong" if kind == BEST else "weak" if row.status in ("stopped", *BAD) else "normal"
            )
            end: Mark = "|" if row.status == "stopped" else MARKS[kind]
            series.append(Series(f"trial {row.number}", x, y, PLACES[kind], end, weight))
    return _with_levels(Panel(TITLES.get(key, key), key, series), sweep, rows, key, baseline)


def _of_axis(sweep: Sweep, rows: Sequence[LedgerRow], axis: Axis, baseline: Mapping[str, float]) -> Panel:
    """The score over the values of one setting."""
    choices = [str(value) for value in axis.values] if axis.kind == "choice" else []
    dots = []
    for row in _scored(rows):
        if axis.key in row.point:
            value = row.point[axis.key]
            x = choices.index(str(value)) if choices else float(value)
            dots.append(_dot(sweep, rows, row, x))
    ticks = [(float(place), name) for place, name in enumerate(choices)]
    metric = sweep.settings.metric
    panel = Panel(axis.key, f"best {metric} of each trial", (), dots=dots, x_label=axis.key, x_ticks=ticks)
    panel = replace(panel, log_x=axis.kind == "loguniform")
    return _with_levels(panel, sweep, rows, metric, baseline)


def _found(sweep: Sweep, rows: Sequence[LedgerRow], baseline: Mapping[str, float]) -> Panel:
    """The score of every trial in the order of their making, and the best so far."""
    metric, scored = sweep.settings.metric, _scored(rows)
    choose = max if sweep.settings.mode == "max" else min
    sound = [row for row in scored if row.status not in BAD]
    so_far = [choose(row.score or 0.0 for row in sound[: place + 1]) for place in range(len(sound))]
    series = [Series("best so far", [row.number for row in sound], so_far, PLACES[BEST])] if sound else []
    dots = [_dot(sweep, rows, row, row.number) for row in scored]
    unit = f"best {metric} of each trial; the line: the best so far"
    panel = Panel("The search", unit, series, dots=dots, x_label="trial")
    return _with_levels(panel, sweep, rows, metric, baseline)


def _dot(sweep: Sweep, rows: Sequence[LedgerRow], row: LedgerRow, x: float) -> Dot:
    kind = _kind(row, ledger.best(rows, sweep.settings.mode))
    mark: Mark = "|" if row.status == "stopped" else MARKS[kind] or "o"
    return Dot(x, row.score or 0.0, PLACES[kind], mark)


def _scored(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    return [row for row in rows if row.score is not None and not row.scores.get(dev(COLLAPSED))]


def _table(sweep: Sweep, rows: Sequence[LedgerRow]) -> list[PageBlock]:
    top, ordered = ledger.best(rows, sweep.settings.mode), ledger.ranked(rows, sweep.settings.mode)
    keys = [axis.key for axis in sweep.space.axes]
    digits = DIGITS.get(sweep.settings.metric, 3)
    cells = [
        [
            str(row.number),
            row.status,
            "–" if row.score is None else f"{row.score:.{digits}f}",
            f"{row.step or '–'} of {row.reached}",
            *(_value(row.point.get(key, "–")) for key in keys),
            row.trial,
        ]
        for row in ordered
    ]
    marked = frozenset(
        place for place, row in enumerate(ordered) if top is not None and row.trial == top.trial
    )
    head = ["trial", "status", sweep.settings.metric, "at step", *keys, "folder in trials/"]
    why = [f"Trial {row.number}: {row.why}" for row in ordered if row.why]
    return [Grid(Table(head, cells, marked)), Words(why)]


def _settings(sweep: Sweep, top: LedgerRow) -> Table:
    """What differs from base.yaml, with what the sweep varied standing out."""
    from unsee_dist.config import RunConfig

    best, base = flat(sweep.config(dict(top.point))), flat(RunConfig())
    keys = [key for key in best if key not in OF_A_TRIAL and best[key] != base.get(key)]
    keys += [key for key in top.point if key in best and key not in keys]
    marked = frozenset(place for place, key in enumerate(keys) if key in top.point)
    rows = [[key, *(_value(each.get(key)) for each in (best, base))] for key in keys]
    return Table(["setting", "best trial", "base.yaml"], rows, marked)


def _next(sweep: Sweep, rows: Sequence[LedgerRow], top: LedgerRow | None) -> list[Next]:
    place, commands = shlex.quote(str(sweep.folder)), []
    if len(rows) < sweep.trials or any(not row.ended for row in rows):
        commands.append(Next(f"unsee sweep --resume {place}", "continues it"))
    if top is not None:
        commands += [
            Next(
                f"unsee report {place}/trials/{top.trial}",
                "the page of the best trial: pairs, neighbours, a map",
            ),
            Next(
                f"unsee sweep --resume {place} --confirm 3",
                "trains the best and the base on three seeds each",
            ),
            Next(
                f"unsee train {place}/report/best.yaml run.dir=runs/best seed=1",
                "trains with the best settings",
            ),
        ]
    return commands


def _baseline(sweep: Sweep) -> tuple[dict[str, float], list[str]]:
    """TF-IDF's scores, or the sentence why there are none."""
    evaluate = sweep.base.evaluate
    try:
        return tfidf_baseline(load_sets(evaluate.sts or ()), load_question_sets(evaluate.retrieval or ())), []
    except (UserError, TransientError) as error:
        return {}, [f"TF-IDF was not measured: {str(error).splitlines()[0]}"]


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else shown(value)
