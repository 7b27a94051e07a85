"""The verdict of a page: is a run better than before training and than TF-IDF, by how much, and which of several is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from unsee_dist.evaluation.development import warnings
from unsee_dist.metrics.names import GAIN, STEP, best_metric, dev
from unsee_dist.metrics.verdict import ADVICE, DIGITS, collapse, decline
from unsee_dist.report.pairs import PairsView
from unsee_dist.report.run_files import RunFiles
from unsee_dist.tracking.metrics_file import Line

Tone = Literal["good", "bad", "even", "none"]
STATES = {
    "running": "It is being trained.",
    "silent": "Its process has not answered for two minutes, and cannot be seen from this machine.",
    "complete": "All its steps are trained.",
    "stopped": "It was stopped; the same command continues it.",
    "begun": "It was stopped before its first checkpoint; the same command begins it anew.",
}


class Tile(NamedTuple):
    """A number and what it is."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "none"


@dataclass(frozen=True)
class Verdict:
    headline: str
    tone: Tone
    tiles: Sequence[Tile] = ()
    sentences: Sequence[str] = ()


def verdict(run: RunFiles, baseline: Mapping[str, float], pairs: Sequence[PairsView]) -> Verdict:
    """Is it better than before training, than TF-IDF, and by how much."""
    scores = run.best or run.last
    sentences = [_state(run)]
    if not scores:
        return Verdict(
            "Not evaluated yet", "none", _tiles(run, baseline), [*sentences, *_not_scored(run), *run.problems]
        )
    deciding, gain = best_metric(scores), scores.get(dev(GAIN), math.nan)
    headline, tone = _headline(scores, gain)
    sentences += [_sentence(words) for words in warnings(scores, baseline)]
    if run.last[STEP] != scores[STEP] and (words := collapse(run.last) or decline(run.last)):
        sentences.append(_sentence(f"at step {run.last[STEP]}: {words}; best/ is of step {scores[STEP]}"))
    if baseline and deciding and deciding[0] in baseline and deciding[1] >= baseline[deciding[0]]:
        digits = DIGITS.get(deciding[0], 3)
        sentences.append(
            f"{deciding[0]} {deciding[1]:.{digits}f} is above TF-IDF ({baseline[deciding[0]]:.{digits}f}), which only counts words."
        )
    elif deciding and not baseline:
        sentences.append("TF-IDF was not measured: the run's evaluation sets could not be read here.")
    gaps = {view: view.difference for view in pairs if view.difference is not None}
    for view, gap in gaps.items():
        sentences.append(
            f"On {view.name}: {gap.value:+.2f} against before training [95%: {gap.low:+.2f} to {gap.high:+.2f}], {gap.verdict} "
            f"on {view.pairs:,} pairs. The interval is over pairs; other seeds differ, too."
        )
    if gaps and tone in ("good", "bad") and all(gap.low <= 0 <= gap.high for gap in gaps.values()):
        tone = "even"
        headline = headline.replace("Better than", "No better than", 1).replace(
            "Worse than", "No worse than", 1
        )
        headline += ", which may be chance"
    if decline(scores):
        sentences.append(ADVICE)
    sentences += [] if deciding else _not_scored(run)
    return Verdict(headline, tone, _tiles(run, baseline), [*sentences, *run.problems])


def comparison(runs: Sequence[RunFiles], baseline: Mapping[str, float]) -> Verdict:
    """Which of several runs is best."""
    sentences = [f"{run.name}: {problem}" for run in runs for problem in run.problems]
    sets = {(run.manifest.identity.sts, run.manifest.identity.retrieval) for run in runs if run.manifest}
    if len(sets) > 1:
        sentences.insert(0, "The runs were evaluated on different sets: their scores cannot be compared.")
    names = {deciding[0] for run in runs if (deciding := best_metric(run.best or run.last))}
    if len(names) != 1 or len(sets) > 1:
        return Verdict("No common score", "none", (), sentences)
    (name,) = names
    digits = DIGITS.get(name, 3)
    scored = [(deciding[1], run) for run in runs if (deciding := best_metric(run.best or run.last))]
    scored.sort(key=lambda pair: -pair[0])
    headline = f"{scored[0][1].name} is best: {name} {scored[0][0]:.{digits}f}"
    if len(scored) > 1:
        ahead = scored[0][0] - scored[1][0]
        headline += f", {ahead:+.{digits}f} against {scored[1][1].name}"
        if round(ahead, digits) == 0:
            headline = (
                f"{scored[0][1].name} and {scored[1][1].name} are equal: {name} {scored[0][0]:.{digits}f}"
            )
    sentences.insert(0, "One seed each says little: runs that differ only in their seed differ, too.")
    best = scored[0][1]
    tone: Tone = "bad" if decline(best.best or best.last) else "good"
    tiles = [Tile("TF-IDF", f"{baseline[name]:.{digits}f}", "only counts words")] if name in baseline else []
    return Verdict(headline, tone, tiles, sentences)


def against(best: tuple[str, float] | None, baseline: Mapping[str, float]) -> str:
    if best is None or best[0] not in baseline:
        return "–"
    return f"{best[1] - baseline[best[0]]:+.{DIGITS.get(best[0], 3)}f}"


def score(best: tuple[str, float] | None) -> str:
    return f"{best[1]:.{DIGITS.get(best[0], 3)}f}" if best else "–"


def _state(run: RunFiles) -> str:
    of = f" of {run.steps}" if run.steps else ""
    return f"Step {run.step}{of}. {STATES[run.state]}"


def _headline(scores: Line, gain: float) -> tuple[str, Tone]:
    deciding = best_metric(scores)
    if words := collapse(scores):
        return _sentence(words).rstrip("."), "bad"
    if deciding is None:
        return "Trained, and not scored", "none"
    name, value = deciding
    digits = DIGITS.get(name, 3)
    shown_score = f"{name} {value:.{digits}f}"
    if math.isnan(gain):
        return f"{shown_score}; nothing was measured before training", "none"
    if round(gain, digits) == 0:
        return f"As good as before training: {shown_score}", "even"
    word = "Better" if gain > 0 else "Worse"
    return f"{word} than before training: {shown_score}, {gain:+.{digits}f}", "good" if gain > 0 else "bad"


def _tiles(run: RunFiles, baseline: Mapping[str, float]) -> list[Tile]:
    before, best, last = (best_metric(line) for line in (run.before, run.best, run.last))
    tiles = []
    if before:
        tiles.append(Tile("Before training", score(before), before[0]))
    if best:
        gain = run.best.get(dev(GAIN), math.nan)
        tone: Tone = "good" if gain > 0 else "bad" if gain < 0 else "none"
        note = f"{gain:+.{DIGITS.get(best[0], 3)}f}, step {run.best[STEP]}" if math.isfinite(gain) else ""
        tiles.append(Tile("Best", score(best), note, tone))
    if last and run.last[STEP] != run.best.get(STEP):
        tiles.append(Tile("Last", score(last), f"step {run.last[STEP]}"))
    elif run.last and not last:
        tiles.append(
            Tile("Last", "–", collapse(run.last) or "no score", "bad" if collapse(run.last) else "none")
        )
    name = (best or last or before or ("", 0.0))[0]
    if name in baseline:
        gap = against(best or last, baseline)
        tone = "bad" if gap.startswith("-") else "good" if gap.startswith("+") else "none"
        tiles.append(Tile("TF-IDF", score((name, baseline[name])), f"the run: {gap}", tone))
    rank = (run.best or run.last).get("dev/effective_rank")
    if rank is not None:
        was = run.before.get("dev/effective_rank")
        tiles.append(Tile("Effective rank", f"{rank:.1f}", f"before {was:.1f}" if was is not None else ""))
    return tiles


def _not_scored(run: RunFiles) -> list[str]:
    """Why a score is missing."""
    if run.config is None or run.config.evaluate.sts or run.config.evaluate.retrieval:
        return []
    return [
        "It has no score, since evaluate.sts and evaluate.retrieval are absent: nobody knows whether training helped. Write "
        "evaluate.sts=FILE (pairs with scores) or evaluate.retrieval=FILE (questions with answers, from unsee prepare --dev)."
    ]


def _sentence(words: str) -> str:
    name = "/" in words.split()[0]  # dev/sts stays as it is
    text = words if name else f"{words[0].upper()}{words[1:]}"
    return text if text.endswith(".") else f"{text}."
