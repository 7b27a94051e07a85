"""The lines of rank 0: one an interval, one an evaluation, a bar on a terminal, a table at the end.

step 01200/30000 | loss 3.4120 agree 0.021 redundancy 3.391 | lr 2.9e-05 decay 0.9990 | grad 0.43
| distance 0.012 | 212 sent/s wait 3% | eta 01:42            (one line)
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from unsee_dist.log import LOG, printed_by
from unsee_dist.metrics.names import (
    CANDIDATES,
    DAMAGED,
    DECAY,
    DISTANCE,
    EFFECTIVE_RANK,
    GAIN,
    GRAD_NORM,
    LOSS,
    LR,
    MEAN_COSINE,
    MRR,
    RECALL_AT_1,
    SENTENCES_PER_S,
    SKIPPED,
    STD,
    STEP,
    STS,
    TRAINING,
    WAIT,
    dev,
)
from unsee_dist.metrics.verdict import decline, state

# Key, name in the line, format; in their order in the line.
SCORES = (
    (dev(STS), "sts", "{:.2f}"),
    (dev(MRR), "mrr", "{:.3f}"),
    (dev(RECALL_AT_1), "recall@1", "{:.3f}"),
    (dev(CANDIDATES), "of", "{:.0f}"),
    (dev(GAIN), "gain", "{:+.3f}"),
    (dev(EFFECTIVE_RANK), "effective rank", "{:.1f}"),
    (dev(STD), "std", "{:.3f}"),
    (dev(MEAN_COSINE), "mean cosine", "{:.3f}"),
)

Line = Mapping[str, object]


def step_line(line: Line, steps: int, eta_s: float) -> str:
    """A training line of metrics.jsonl as text; keys that are absent are left out."""
    width = len(str(steps))
    terms = [f"{name} {_short(value)}" for name, value in line.items() if name not in TRAINING]
    loss = [f"loss {_number(line[LOSS]):.4f}"] if LOSS in line else []
    speed = [f"{_rate(_number(line[SENTENCES_PER_S]))} sent/s"] if SENTENCES_PER_S in line else []
    parts = [
        [f"step {_number(line[STEP]):0{width}.0f}/{steps}"],
        loss + terms,
        _named(line, (LR, "lr", "{:.1e}"), (DECAY, "decay", "{:.4f}")),
        _named(line, (GRAD_NORM, "grad", "{:.2f}")),
        _named(line, (DISTANCE, "distance", "{:.3g}")),
        speed + _named(line, (WAIT, "wait", "{:.0%}")),
        [f"skipped {_number(line[SKIPPED]):.0f}"] if line.get(SKIPPED) else [],
        [f"{_number(line[DAMAGED]):.0f} damaged (unsee shards verify)"] if line.get(DAMAGED) else [],
        [f"eta {clock(eta_s)}"],
    ]
    return " | ".join(" ".join(part) for part in parts if part)


def evaluation_line(line: Line, steps: int, best: bool) -> str:
    """An evaluation line of metrics.jsonl as text."""
    width = len(str(steps))
    parts = [f"eval {_number(line[STEP]):0{width}.0f}/{steps}", *_named(line, *SCORES)]
    numbers = {key: _number(value) for key, value in line.items()}
    if found := state(numbers):
        known = {
            "one point": "COLLAPSED: all embeddings are one point",
            "not finite": "BROKEN: embeddings are not finite",
        }
        parts.append(known.get(found, f"COLLAPSED: {found}"))
    if worse := decline(numbers):
        parts.append(worse)
    return " | ".join(parts) + (" | best so far" if best else "")


def clock(seconds: float) -> str:
    """Seconds as mm:ss, from an hour on as h:mm:ss."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


class _OnConsole(logging.Handler):
    """Lines of the logger on the console of a run, above its bar: as they are, brackets are no markup, never wrapped."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        self.console.print(record.getMessage(), markup=False, soft_wrap=True, style=style)


class ConsoleReporter:
    """The console of a run of `steps` steps that begins after `first` (0, or where it resumes).

    Every line goes through the logger, which prints on this console until `close`; a progress bar is drawn only on a
    terminal.
    """

    def __init__(self, steps: int, first: int = 0, console: Console | None = None) -> None:
        # stderr, so that a command's own output on stdout stays clean.
        self.console = console or Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self.steps, self.first = steps, first
        self._open = ExitStack()
        self._open.enter_context(printed_by(_OnConsole(self.console)))
        self._began_s = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if self.console.is_terminal:
            columns = (TextColumn("training"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True)
            self._task = self._bar.add_task("", total=steps, completed=first)
            self._bar.start()

    def advance(self, step: int) -> None:
        """Move the bar; cheap enough for every step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def training(self, line: Line) -> None:
        """Print a training line of metrics.jsonl."""
        step = _number(line[STEP])
        taken_s = time.monotonic() - self._began_s
        eta_s = taken_s / max(1, step - self.first) * (self.steps - step)
        LOG.info(step_line(line, self.steps, eta_s))

    def evaluation(self, line: Line, best: bool) -> None:
        """Print an evaluation line of metrics.jsonl."""
        LOG.info(evaluation_line(line, self.steps, best))

    def warn(self, sentence: str) -> None:
        """Print one line that needs attention. May be called from another thread."""
        LOG.warning("warning: %s", sentence)

    def close(self) -> None:
        """Remove the bar; the logger prints on stderr again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._open.close()

    def summary(self, columns: Mapping[str, Line], paths: Mapping[str, object], next_: Sequence[str]) -> None:
        """The end: scores by column ("before", "best (step 900)", "final"), paths, commands to run next."""
        table = Table("", *columns)
        for key, name, form in SCORES:
            if any(key in line for line in columns.values()):
                cells = [form.format(_number(line[key])) if key in line else "–" for line in columns.values()]
                table.add_row("of candidates" if name == "of" else name, *cells)
        if self._bar is not None:
            self._bar.stop()
        self.console.print(table)
        for name, path in paths.items():
            LOG.info("%s: %s", name, path)
        for command in next_:
            LOG.info("next: %s", command)
        self.close()


def _named(line: Line, *wanted: tuple[str, str, str]) -> list[str]:
    return [f"{name} {form.format(_number(line[key]))}" for key, name, form in wanted if key in line]


def _number(value: object) -> float:
    return float(value)  # type: ignore[arg-type]


def _short(value: object) -> str:
    number = _number(value)
    return f"{number:.1e}" if 0 < abs(number) < 1e-3 else f"{number:.3f}"


def _rate(per_s: float) -> str:
    return f"{per_s / 1000:.1f}k" if per_s >= 10_000 else f"{per_s:.0f}"
