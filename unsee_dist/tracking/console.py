"""The lines of rank 0: one an interval, one an evaluation, a bar on a terminal, a table at the end.

step 01200/30000 | loss 3.4120 agree 0.021 redundancy 3.391 | lr 2.9e-05 decay 0.9990 | grad 0.43
| distance 0.012 | 212 sent/s wait 3% | eta 01:42            (one line; on a terminal, as much as fits)
"""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from unsee_dist.log import LOG, is_quiet, printed_by
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
from unsee_dist.terminal import clear_waiting, first_that_fits, wrapped
from unsee_dist.tracking.eta import Eta, Kind

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

ORDER = (1, 1, 4, 5, 2, 3, 6, 6)  # of the scores, see Fragment

Line = Mapping[str, object]
# A fragment of a line: from which width of a terminal on it is shown, as an order (0: always), and its text.
Fragment = tuple[int, str]


def step_line(line: Line, steps: int, eta_s: float, width: int | None = None) -> str:
    """A training line of metrics.jsonl as text; keys that are absent are left out, and so is, on a terminal, what is
    beyond its width: metrics.jsonl has it."""
    digits = len(str(steps))
    terms = [f"{name} {_short(value)}" for name, value in line.items() if name not in TRAINING]
    loss = [f"loss {_number(line[LOSS]):.4f}"] if LOSS in line else []
    speed = [f"{_rate(_number(line[SENTENCES_PER_S]))} sent/s"] if SENTENCES_PER_S in line else []
    damaged = f"{_number(line[DAMAGED]):.0f} damaged" if line.get(DAMAGED) else ""
    cells = [
        [(0, f"step {_number(line[STEP]):0{digits}.0f}/{steps}")],
        _fragments(0, loss) + _fragments(5, terms),
        _fragments(2, _named(line, (LR, "lr", "{:.1e}")))
        + _fragments(6, _named(line, (DECAY, "decay", "{:.4f}"))),
        _fragments(3, _named(line, (GRAD_NORM, "grad", "{:.2f}"))),
        _fragments(7, _named(line, (DISTANCE, "distance", "{:.3g}"))),
        _fragments(1, speed) + _fragments(4, _named(line, (WAIT, "wait", "{:.0%}"))),
        _fragments(1, [f"skipped {_number(line[SKIPPED]):.0f}"] if line.get(SKIPPED) else []),
        _fragments(1, [damaged] if damaged else [])
        + _fragments(6, ["(unsee shards verify)"] if damaged else []),
        [(0, f"eta {clock(eta_s)}")],
    ]
    return _fitted(cells, width)


def evaluation_line(line: Line, steps: int, best: bool, width: int | None = None) -> str:
    """An evaluation line of metrics.jsonl as text, on a terminal as much of it as fits."""
    digits = len(str(steps))
    cells = [[(0, f"eval {_number(line[STEP]):0{digits}.0f}/{steps}")]]
    cells += [_fragments(order, _named(line, score)) for order, score in zip(ORDER, SCORES, strict=True)]
    numbers = {key: _number(value) for key, value in line.items()}
    if collapsed := state(numbers):
        known = {
            "one point": "COLLAPSED: all embeddings are one point",
            "not finite": "BROKEN: embeddings are not finite",
        }
        cells.append([(0, known.get(collapsed, f"COLLAPSED: {collapsed}"))])
    if worse := decline(numbers):
        what, _, numbers_of_it = worse.partition(": ")
        cells.append([(0, f"{what}:"), (7, numbers_of_it)])
    return _fitted([*cells, [(1, "best so far")] if best else []], width)


def _fragments(order: int, texts: Iterable[str]) -> list[Fragment]:
    return [(order, text) for text in texts]


def _fitted(cells: Sequence[Sequence[Fragment]], width: int | None) -> str:
    """The cells with all fragments, or without those of the highest orders, so that they fit into the width."""
    orders = sorted({order for cell in cells for order, _ in cell}, reverse=True)
    return first_that_fits((_joined(cells, most) for most in orders), width)


def _joined(cells: Sequence[Sequence[Fragment]], most: int) -> str:
    texts = (" ".join(text for order, text in cell if order <= most).removesuffix(":") for cell in cells)
    return " | ".join(filter(None, texts))


def clock(seconds: float) -> str:
    """Seconds as mm:ss, from an hour on as h:mm:ss."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


class OnConsole(logging.Handler):
    """Lines of the logger on the console of a run, above its bar: brackets are no markup, and on a terminal lines end
    between words."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        text = wrapped(record.getMessage(), width_of(self.console))
        self.console.print(text, markup=False, soft_wrap=True, style=style)


def width_of(console: Console) -> int | None:
    """Of a terminal; None of anything else."""
    return console.width if console.is_terminal else None


class ConsoleReporter:
    """The console of a run of `steps` steps that begins after `first` (0, or where it resumes).

    Every line goes through the logger, which prints on this console until `close`; bars are drawn only on a
    terminal: of the run, and of an evaluation while there is one.
    """

    def __init__(
        self, steps: int, first: int = 0, console: Console | None = None, eta: Eta | None = None
    ) -> None:
        # stderr, so that a command's own output on stdout stays clean.
        self.console = console or Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self.steps, self.eta = steps, eta or Eta(steps)
        self._open = ExitStack()
        clear_waiting()
        self._open.enter_context(printed_by(OnConsole(self.console)))
        self._bar: Progress | None = None
        self._task = self._evaluation = TaskID(0)
        if self.console.is_terminal and not is_quiet():
            columns = (
                TextColumn("{task.description:<10}"),
                BarColumn(None),
                TextColumn("{task.completed}/{task.total} {task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=self.console, transient=True, expand=True)
            self._task = self._bar.add_task("training", total=steps, completed=first, left="")
            self._evaluation = self._bar.add_task("evaluation", total=1, visible=False, left="sentences")
            self._bar.start()

    def advance(self, step: int) -> None:
        """Move the bar; cheap enough for every step."""
        if self._bar is not None:
            left = f"eta {clock(self.eta.seconds(step))}"
            self._bar.update(self._task, completed=step, left=left)

    def doing(self, what: str) -> None:
        """What the run does now, before its bar: training, or what keeps it from that."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)

    def evaluating(self, done: int, sentences: int) -> None:
        """Draw the bar of an evaluation, until all its sentences are done."""
        if self._bar is not None:
            self._bar.update(
                self._evaluation, completed=done, total=sentences, visible=done < sentences, refresh=done == 0
            )

    def took(self, kind: Kind, seconds: float) -> None:
        """A step, an evaluation or a save took so long: the time left is reckoned from it."""
        self.eta.took(kind, seconds)

    def training(self, line: Line) -> None:
        """Print a training line of metrics.jsonl."""
        eta_s = self.eta.seconds(int(_number(line[STEP])))
        LOG.info(step_line(line, self.steps, eta_s, width_of(self.console)))

    def evaluation(self, line: Line, best: bool) -> None:
        """Print an evaluation line of metrics.jsonl."""
        LOG.info(evaluation_line(line, self.steps, best, width_of(self.console)))

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
        if not is_quiet():
            self.console.print(table)
        for name, path in paths.items():
            LOG.info("%s: %s", name, path)
        for command in next_:
            LOG.info("next: %s", command)
        self.close()


def _named(line: Line, *wanted: tuple[str, str, str]) -> list[str]:
    return [f"{name} {form.format(_number(line[key]))}" for key, name, form in wanted if key in line]


def _number(value: Any) -> float:
    return float(value)


def _short(value: object) -> str:
    number = _number(value)
    return f"{number:.1e}" if 0 < abs(number) < 1e-3 else f"{number:.3f}"


def _rate(per_s: float) -> str:
    return f"{per_s / 1000:.1f}k" if per_s >= 10_000 else f"{per_s:.0f}"
