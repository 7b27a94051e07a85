"""The parts of a page that are words and tables: verdict, settings, environment, history, what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from unsee_dist.config import RunConfig
from unsee_dist.config.kinds import flat, shown
from unsee_dist.evaluation.development import warnings
from unsee_dist.metrics.names import DAMAGED, GAIN, PASSED_OVER, SKIPPED, STEP, best_metric, dev
from unsee_dist.metrics.verdict import ADVICE, DIGITS, collapse, decline
from unsee_dist.report.run_files import RunFiles
from unsee_dist.report.sentences import PairsView
from unsee_dist.tracking.metrics_file import Line
from unsee_dist.training.ending import Ending

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


class Event(NamedTuple):
    time: str
    step: str
    what: str


@dataclass(frozen=True)
class Table:
    """head: of the columns. marked: rows that stand out."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = field(default_factory=frozenset)


class Next(NamedTuple):
    """A command, and what it does."""

    command: str
    why: str


def verdict(run: RunFiles, baseline: Mapping[str, float], pairs: Sequence[PairsView]) -> Verdict:
    """Is it better than before training, than TF-IDF, and by how much."""
    scores = run.best or run.last
    sentences = [_state(run)]
    if not scores:
        return Verdict(
            "Not judged yet", "none", _tiles(run, baseline), [*sentences, *_unjudged(run), *run.problems]
        )
    deciding, gain = best_metric(scores), scores.get(dev(GAIN), math.nan)
    headline, tone = _headline(scores, gain)
    sentences += [_sentence(words) for words in warnings(scores, baseline)]
    if run.last[STEP] != scores[STEP] and (words := collapse(run.last)):
        sentences.append(_sentence(f"at step {run.last[STEP]} {words}; best/ is of step {scores[STEP]}"))
    if baseline and deciding and deciding[0] in baseline and deciding[1] >= baseline[deciding[0]]:
        digits = DIGITS.get(deciding[0], 3)
        sentences.append(
            f"{deciding[0]} {deciding[1]:.{digits}f} is above TF-IDF ({baseline[deciding[0]]:.{digits}f}), which only counts words."
        )
    elif deciding and not baseline:
        sentences.append("TF-IDF was not measured: the run's evaluation sets could not be read here.")
    for view in pairs:
        if (gap := view.difference) is not None:
            sentences.append(
                f"On {view.name}: {gap.value:+.2f} against before training [95%: {gap.low:+.2f} to {gap.high:+.2f}], {gap.verdict} "
                f"on {view.pairs:,} pairs. The interval is over pairs; other seeds differ, too."
            )
            if tone == "good" and gap.low <= 0:
                tone = "even"
    if decline(scores):
        sentences.append(ADVICE)
    sentences += [] if deciding else _unjudged(run)
    return Verdict(headline, tone, _tiles(run, baseline), [*sentences, *run.problems])


def comparison(runs: Sequence[RunFiles], baseline: Mapping[str, float]) -> Verdict:
    """Which of several runs is best."""
    sentences = [f"{run.name}: {problem}" for run in runs for problem in run.problems]
    sets = {(run.manifest.identity.sts, run.manifest.identity.retrieval) for run in runs if run.manifest}
    if len(sets) > 1:
        sentences.insert(0, "The runs were judged on different sets: their scores cannot be compared.")
    names = {found[0] for run in runs if (found := best_metric(run.best or run.last))}
    if len(names) != 1 or len(sets) > 1:
        return Verdict("No common score", "none", (), sentences)
    (name,) = names
    digits = DIGITS.get(name, 3)
    scored = [(found[1], run) for run in runs if (found := best_metric(run.best or run.last))]
    scored.sort(key=lambda pair: -pair[0])
    ahead = (
        f", {scored[0][0] - scored[1][0]:+.{digits}f} against {scored[1][1].name}" if len(scored) > 1 else ""
    )
    headline = f"{scored[0][1].name} is best: {name} {scored[0][0]:.{digits}f}{ahead}"
    sentences.insert(0, "One seed each says little: runs that differ only in their seed differ, too.")
    best = scored[0][1]
    tone: Tone = "bad" if decline(best.best or best.last) else "good"
    tiles = [Tile("TF-IDF", f"{baseline[name]:.{digits}f}", "only counts words")] if name in baseline else []
    return Verdict(headline, tone, tiles, sentences)


def overview(runs: Sequence[RunFiles], baseline: Mapping[str, float]) -> Table:
    """A row a run."""
    rows = []
    for run in runs:
        before, best, last = (best_metric(line) for line in (run.before, run.best, run.last))
        gain = (run.best or run.last).get(dev(GAIN))
        name = (best or last or before or ("", 0.0))[0]
        rows.append(
            [
                run.name,
                f"{run.state}, step {run.step}{f' of {run.steps}' if run.steps else ''}",
                _score(before),
                f"{_score(best)} (step {run.best[STEP]})" if best else "–",
                f"{gain:+.{DIGITS.get(name, 3)}f}" if gain is not None else "–",
                _against(best or last, baseline),
                collapse(run.last) or _score(last),
            ]
        )
    head = ["run", "state", "before", "best", "gain", "against TF-IDF", "last evaluation"]
    return Table(head, rows)


def evaluations(run: RunFiles) -> Table:
    """Every evaluation as numbers."""
    keys = [
        key
        for key in dict.fromkeys(key for line in run.evaluations for key in line)
        if key.startswith("dev/")
    ]
    keys = [
        key for key in keys if not key.startswith("dev/spectrum/") and key not in (dev("best"), dev("gain"))
    ]
    rows = [
        [str(line[STEP]), *(_number(line[key]) if key in line else "–" for key in keys)]
        for line in run.evaluations
    ]
    marked = frozenset(
        place for place, line in enumerate(run.evaluations) if run.best and line[STEP] == run.best[STEP]
    )
    return Table(["step", *(key.removeprefix("dev/") for key in keys)], rows, marked)


def settings(runs: Sequence[RunFiles]) -> tuple[Table, Table]:
    """(what differs, all): of several runs between them, of one run from base.yaml."""
    base = flat(RunConfig())
    columns = [run.settings for run in runs]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    if len(runs) > 1:
        head = ["setting", *(run.name for run in runs)]
        different = [key for key in keys if len({shown(column.get(key)) for column in columns}) > 1]
    else:
        head = ["setting", "this run", "base.yaml"]
        columns = [*columns, base]
        different = [key for key in keys if columns[0].get(key) != base.get(key)]

    def rows(wanted: Sequence[str]) -> list[list[str]]:
        return [[key, *(shown(column.get(key)) for column in columns)] for key in wanted]

    return Table(head, rows(different)), Table(head, rows(keys))


def environment(runs: Sequence[RunFiles]) -> Table | None:
    """Of the last start of each run; None where no start has kept it. A row that differs between runs stands out."""
    columns = [run.starts[-1].environment if run.starts else {} for run in runs]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    if not keys:
        return None
    rows = [[_plain(key), *(column.get(key, "–") for column in columns)] for key in keys]
    ranks = [str(run.starts[-1].ranks) if run.starts else "–" for run in runs]
    rows.insert(0, ["ranks", *ranks])
    marked = frozenset(place for place, row in enumerate(rows) if len(set(row[1:])) > 1)
    return Table(["", *(run.name for run in runs)], rows, marked)


def history(run: RunFiles) -> list[Event]:
    """Starts, and between them where an earlier one had ended: its end itself is recorded nowhere."""
    events: list[Event] = []
    for number, start in enumerate(run.starts):
        if number:
            events.append(
                Event("", str(start.step), "had stopped; steps after its last checkpoint were trained again")
            )
        parts = ["began" if number == 0 else "continued", f"on {start.ranks} rank{'s' * (start.ranks != 1)}"]
        parts += [f"of {host}"] if (host := start.environment.get("host")) else []
        parts += [f"from {start.origin}"] if start.origin else []
        changed = [f"{key} {shown(there)} → {shown(here)}" for key, (there, here) in start.changed.items()]
        what = " ".join(parts) + (f"; changed: {', '.join(changed)}" if changed else "")
        events.append(Event(_when(start.time), str(start.step), what))
    events += _faults(run)
    events.append(Event(_when(run.changed_at), str(run.step), STATES[run.state]))
    return events


def next_steps(runs: Sequence[RunFiles]) -> list[Next]:
    """What to write next."""
    if len(runs) == 1:
        return [
            *_of_one(runs[0]),
            Next(f"unsee report {_place(runs[0])} OTHER", "compares it with another run"),
        ]
    places = " ".join(map(_place, runs))
    found = [
        Next(
            f"unsee compare {places}",
            "after unsee evaluate RUN of each: their scores on tasks, with intervals",
        )
    ]
    found += [Next(f"unsee report {_place(run)}", f"the page of {run.name} alone") for run in runs]
    return found


def _place(run: RunFiles) -> str:
    return shlex.quote(str(run.folder))


def _of_one(run: RunFiles) -> list[Next]:
    place, found = _place(run), list[Next]()
    if run.state in ("stopped", "begun"):
        changed = {key: pair[1] for start in run.starts for key, pair in start.changed.items()}
        more = "".join(f" {shlex.quote(f'{key}={_typed(value)}')}" for key, value in changed.items())
        found.append(
            Next(f"unsee train {place}/config.yaml{more}", "continues it, from the folder it was started in")
        )
    if run.state in ("running", "silent"):
        found.append(Next("unsee runs", "shows how far it is"))
    scores = run.best or run.last
    if scores and not collapse(scores):
        found.append(
            Next(
                f"unsee evaluate {place} --tier sts", "scores it on published tasks; --tasks DIR on your own"
            )
        )
        found.append(
            Next(f"unsee export {place} --out my-encoder", "writes it for others, with a model card")
        )
    if collapse(run.last) or (scores and decline(scores)):
        lr = run.settings.get("train.lr")
        rate = f"{lr / 3:.1e}" if isinstance(lr, float) else "1e-5"
        command = f"unsee train {place}/config.yaml train.lr={rate} run.dir={place}-2 run.name={shlex.quote(run.name)}-2"
        found.append(Next(command, "tries a third of its learning rate"))
    if run.manifest and run.config and run.state == "complete":
        ending = Ending(run.manifest.progress, run.folder, run.config.model.encoder)
        found += [Next(text, "in Python") for text in ending.next if text.startswith("Sentence")]
    return found


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
        tiles.append(Tile("Before training", _score(before), before[0]))
    if best:
        gain = run.best.get(dev(GAIN), math.nan)
        tone: Tone = "good" if gain > 0 else "bad" if gain < 0 else "none"
        note = f"{gain:+.{DIGITS.get(best[0], 3)}f}, step {run.best[STEP]}" if math.isfinite(gain) else ""
        tiles.append(Tile("Best", _score(best), note, tone))
    if last and run.last[STEP] != run.best.get(STEP):
        tiles.append(Tile("Last", _score(last), f"step {run.last[STEP]}"))
    elif run.last and not last:
        tiles.append(
            Tile("Last", "–", collapse(run.last) or "no score", "bad" if collapse(run.last) else "none")
        )
    name = (best or last or before or ("", 0.0))[0]
    if name in baseline:
        against = _against(best or last, baseline)
        tone = "bad" if against.startswith("-") else "good" if against.startswith("+") else "none"
        tiles.append(Tile("TF-IDF", _score((name, baseline[name])), f"the run: {against}", tone))
    rank = (run.best or run.last).get("dev/effective_rank")
    if rank is not None:
        was = run.before.get("dev/effective_rank")
        tiles.append(Tile("Effective rank", f"{rank:.1f}", f"before {was:.1f}" if was is not None else ""))
    return tiles


def _unjudged(run: RunFiles) -> list[str]:
    """Why a score is missing."""
    if run.config is None or run.config.evaluate.sts or run.config.evaluate.retrieval:
        return []
    return [
        "It has no score, since evaluate.sts and evaluate.retrieval are absent: nobody knows whether training helped. Write "
        "evaluate.sts=FILE (pairs with scores) or evaluate.retrieval=FILE (questions with answers, from unsee prepare --dev)."
    ]


def _faults(run: RunFiles) -> list[Event]:
    last = run.training[-1] if run.training else {}
    words = {SKIPPED: "steps skipped", PASSED_OVER: "steps passed over after a return to a checkpoint"}
    found = [Event("", "", f"{last[key]:.0f} {what}") for key, what in words.items() if last.get(key)]
    damaged = sum(line.get(DAMAGED, 0) for line in run.training)
    return found + ([Event("", "", f"{damaged:.0f} damaged sentences replaced")] if damaged else [])


def _against(found: tuple[str, float] | None, baseline: Mapping[str, float]) -> str:
    if found is None or found[0] not in baseline:
        return "–"
    return f"{found[1] - baseline[found[0]]:+.{DIGITS.get(found[0], 3)}f}"


def _score(found: tuple[str, float] | None) -> str:
    return f"{found[1]:.{DIGITS.get(found[0], 3)}f}" if found else "–"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _typed(value: object) -> str:
    return "null" if value is None else shown(value)


def _plain(key: str) -> str:
    return key.removeprefix("version.").removeprefix("mlflow.source.").replace(".", " ")


def _sentence(words: str) -> str:
    name = "/" in words.split()[0]  # dev/sts stays as it is
    text = words if name else f"{words[0].upper()}{words[1:]}"
    return text if text.endswith(".") else f"{text}."


def _when(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M") if seconds else "–"
