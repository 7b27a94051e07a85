"""The progress bar of a preparation, and the report of what it read, dropped and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from unsee_dist.data.prepare.bad_records import BAD_RECORD, MEMBERS, RECORD
from unsee_dist.data.prepare.formats import printable

SHOWN = 3  # files and records in a sentence; the index has more
WANTED = frozenset({"duplicate", "held out"})
_DOCUMENTS = "They look like whole documents: write --split sentence, or a larger"
ADVICE = {
    "too many words": f"{_DOCUMENTS} --max-words.",
    "too many bytes": f"{_DOCUMENTS} --max-bytes.",
    "too few words": "Write a smaller --min-words: 1 keeps all of them.",
    "too few bytes": "Write a smaller --min-bytes.",
    "too few letters": "Write a smaller --min-letters.",
    "another language": "Look at --keep-language.",
    BAD_RECORD: "Look at the first of them, and at --field.",
    RECORD: "Where each line is a JSON object, name the file .jsonl, and write --field with its key.",
    "empty": "Look at --field: most of its values hold no text.",
}


@dataclass(frozen=True)
class LeftOutFiles:
    """Files that were left out for one reason: how many, and the first paths."""

    files: int
    first: list[str]


@dataclass(frozen=True)
class PreparationReport:
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
    bad_records: list[str] = field(default_factory=list)  # sentences about the first that were skipped
    left_out: dict[str, LeftOutFiles] = field(default_factory=dict)  # by the reason
    members: int = 0  # of tars, that are no text
    tokens: dict[str, str] = field(default_factory=dict)  # rows about tokens, when there is a tokenizer

    def table(self) -> Table:
        """The report for people."""
        table = Table("", "", show_header=False)
        rows = {"sentences read": self.read} | {f"dropped: {why}": n for why, n in self.dropped.items()}
        rows |= {"kept": self.kept, "bytes": self.bytes, "shards": self.shards, "held-out pairs": self.dev}
        if self.left_out:
            rows["files left out"] = sum(each.files for each in self.left_out.values())
        if self.members:
            rows[MEMBERS] = self.members
        for name, number in rows.items():
            table.add_row(name, f"{number:,}")
        unknown = dict.fromkeys(("tokens a sentence", "over the limit"), "counted with --tokenizer")
        for name, text in (self.tokens or unknown).items():
            table.add_row(name, text)
        table.add_row("fingerprint", self.fingerprint)
        return table

    def title(self) -> str:
        """The folder, and how long it took."""
        done = "already complete" if self.seconds is None else f"{self.seconds:.1f} s"
        return f"{printable(str(self.out))} ({done})"

    def notices(self) -> list[str]:
        """Sentences about what was not read or not kept and may be missed."""
        lines = [
            f"left out: {each.files:,} ({why}): {', '.join(each.first[:SHOWN])}{', ...' if each.files > SHOWN else ''}"
            for why, each in self.left_out.items()
        ]
        if number := self.dropped.get(BAD_RECORD, 0):
            lines.append(
                f"bad records skipped: {number:,}. The first: {'; '.join(self.bad_records[:SHOWN])}."
            )
        lost = sum(number for why, number in self.dropped.items() if why not in WANTED)
        if 2 * lost > self.read and (why := most_dropped(self.dropped)):
            lines.append(
                f"MOST OF THE INPUT WAS DROPPED: {lost:,} of {self.read:,} sentences, {self.dropped[why]:,} of them for "
                f"{why!r}. {ADVICE[why]}"
            )
        return lines


def most_dropped(dropped: Mapping[str, int]) -> str:
    """The reason for which most sentences were dropped, of those that a setting mends; "" when there is none."""
    return max((why for why in dropped if why in ADVICE), key=lambda why: dropped[why], default="")


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
    shown = console is not None and console.is_terminal and not console.quiet
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not shown, transient=True) as bars:
        yield Bar(bars)


@dataclass(frozen=True)
class _Preparation:
    """What the index says about the inputs, beside the plan."""

    counters: dict[str, int]
    bad_records: list[str] = field(default_factory=list)
    left_out: dict[str, LeftOutFiles] = field(default_factory=dict)


_PREPARATION = TypeAdapter(_Preparation)


def report_of(out: Path, index: CorpusIndex, seconds: float | None) -> PreparationReport:
    """The report of a corpus by its index; seconds: None when it already existed."""
    preparation = _PREPARATION.validate_python(index.preparation or {})
    dropped = dict(preparation.counters)
    members = dropped.pop(MEMBERS, 0)
    return PreparationReport(
        out=out,
        read=dropped.pop("read"),
        dropped=dropped,
        kept=index.sentences,
        bytes=sum(shard.bytes for shard in index.shards),
        shards=len(index.shards),
        dev=index.dev,
        fingerprint=index.fingerprint,
        seconds=seconds,
        bad_records=preparation.bad_records,
        left_out=preparation.left_out,
        members=members,
    )
