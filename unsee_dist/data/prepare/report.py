"""The progress bar of a preparation, and the report of what it read, dropped and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from unsee_dist.data.corpus.index import CorpusIndex


@dataclass(frozen=True)
class Report:
    """The counts of a preparation, read from the index when the corpus already existed."""

    out: Path
    read: int
    dropped: dict[str, int]
    kept: int
    bytes: int
    shards: int
    dev: int
    fingerprint: str
    seconds: float | None  # None: the corpus already existed
    tokens: dict[str, str] = field(default_factory=dict)  # rows about tokens, when there is a tokenizer

    def table(self) -> Table:
        """The report for people."""
        done = "already complete" if self.seconds is None else f"{self.seconds:.1f} s"
        table = Table("", "", title=f"{self.out} ({done})", show_header=False)
        rows = {"sentences read": self.read} | {f"dropped: {why}": n for why, n in self.dropped.items()}
        rows |= {"kept": self.kept, "bytes": self.bytes, "shards": self.shards, "held-out pairs": self.dev}
        for name, number in rows.items():
            table.add_row(name, f"{number:,}")
        unknown = dict.fromkeys(("tokens a sentence", "over the limit"), "counted with --tokenizer")
        for name, text in (self.tokens or unknown).items():
            table.add_row(name, text)
        table.add_row("fingerprint", self.fingerprint)
        return table


class Bar:
    """Progress with rate and remaining time, a line a stage."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def stage(self, name: str, total: int, unit: str) -> Callable[[int], None]:
        """Start a stage; returns a function that adds to what is done. total: 0 = unknown."""
        task = self._shown.add_task(name, total=total or None, unit=unit)
        return lambda n: self._shown.advance(task, n)


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed, unit = task.speed or 0.0, task.fields["unit"]
        return Text(f"{speed / 1e6:.1f} MB/s" if unit == "bytes" else f"{speed:.1f} {unit}/s")


@contextmanager
def progress(console: Console | None) -> Iterator[Bar]:
    """A progress bar on a terminal; elsewhere one that prints nothing."""
    shown = console is not None and console.is_terminal
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not shown, transient=True) as bars:
        yield Bar(bars)


_COUNTERS = TypeAdapter(dict[str, int])


def report_of(out: Path, index: CorpusIndex, seconds: float | None) -> Report:
    """The report of a corpus by its index; seconds: None when it already existed."""
    dropped = _COUNTERS.validate_python((index.preparation or {}).get("counters"))
    return Report(
        out=out,
        read=dropped.pop("read"),
        dropped=dropped,
        kept=index.sentences,
        bytes=sum(shard.bytes for shard in index.shards),
        shards=len(index.shards),
        dev=index.dev,
        fingerprint=index.fingerprint,
        seconds=seconds,
    )
