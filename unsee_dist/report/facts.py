"""The tables of a page: scores, settings, environment, history, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from unsee_dist.config import RunConfig
from unsee_dist.config.kinds import flat, shown
from unsee_dist.metrics.names import DAMAGED, GAIN, PASSED_OVER, SKIPPED, STEP, best_metric, dev
from unsee_dist.metrics.verdict import DIGITS, collapse, decline
from unsee_dist.report.headline import STATES, against, score
from unsee_dist.report.run_files import RunFiles
from unsee_dist.training.ending import Ending
from unsee_dist.training.start import free_name


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
                score(before),
                f"{score(best)} (step {run.best[STEP]})" if best else "–",
                f"{gain:+.{DIGITS.get(name, 3)}f}" if gain is not None else "–",
                against(best or last, baseline),
                collapse(run.last) or score(last),
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
    commands = [
        Next(
            f"unsee compare {places}",
            "after unsee evaluate RUN of each: their scores on tasks, with intervals",
        )
    ]
    commands += [Next(f"unsee report {_place(run)}", f"the page of {run.name} alone") for run in runs]
    return commands


def _place(run: RunFiles) -> str:
    return shlex.quote(str(run.folder))


def _of_one(run: RunFiles) -> list[Next]:
    place, commands = _place(run), list[Next]()
    if run.state in ("stopped", "begun"):
        changed = {key: pair[1] for start in run.starts for key, pair in start.changed.items()}
        more = "".join(f" {shlex.quote(f'{key}={_typed(value)}')}" for key, value in changed.items())
        commands.append(
            Next(f"unsee train {place}/config.yaml{more}", "continues it, from the folder it was started in")
        )
    if run.state in ("running", "silent"):
        commands.append(Next("unsee runs", "shows how far it is"))
    scores = run.best or run.last
    if scores and not collapse(scores):
        commands.append(
            Next(
                f"unsee evaluate {place} --tier sts", "scores it on published tasks; --tasks DIR on your own"
            )
        )
        commands.append(
            Next(f"unsee export {place} --out my-encoder", "writes it for others, with a model card")
        )
    if collapse(run.last) or (scores and decline(scores)):
        lr = run.settings.get("train.lr")
        rate = f"{lr / 3:.1e}" if isinstance(lr, float) else "1e-5"
        other = free_name(run.folder)
        names = f"run.dir={shlex.quote(str(other))} run.name={shlex.quote(other.name)}"
        command = f"unsee train {place}/config.yaml train.lr={rate} {names}"
        commands.append(Next(command, "tries a third of its learning rate"))
    if run.manifest and run.config and run.state == "complete":
        ending = Ending(run.manifest.progress, run.folder, run.config.model.encoder)
        commands += [Next(text, "in Python") for text in ending.next if text.startswith("Sentence")]
    return commands


def _faults(run: RunFiles) -> list[Event]:
    last = run.training[-1] if run.training else {}
    words = {SKIPPED: "steps skipped", PASSED_OVER: "steps passed over after a return to a checkpoint"}
    events = [Event("", "", f"{last[key]:.0f} {what}") for key, what in words.items() if last.get(key)]
    damaged = sum(line.get(DAMAGED, 0) for line in run.training)
    return events + ([Event("", "", f"{damaged:.0f} damaged sentences replaced")] if damaged else [])


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _typed(value: object) -> str:
    return "null" if value is None else shown(value)


def _plain(key: str) -> str:
    return key.removeprefix("version.").removeprefix("mlflow.source.").replace(".", " ")


def _when(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M") if seconds else "–"
