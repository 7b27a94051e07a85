"""Report: what a preparation read, dropped and kept, for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Report:
    """What a preparation did; of a corpus that was already there, what it did then."""

    out: Path
    read: int
    dropped: dict[str, int]
    kept: int
    bytes: int
    shards: int
    dev: int
    fingerprint: str
    seconds: float | None  # None: it was already there

    def table(self) -> Table:
        """The report for people."""
        done = "already there" if self.seconds is None else f"{self.seconds:.1f} s"
        table = Table("", "", title=f"{self.out} ({done})", show_header=False)
        rows = {"sentences read": self.read} | {f"dropped: {why}": n for why, n in self.dropped.items()}
        rows |= {"kept": self.kept, "bytes": self.bytes, "shards": self.shards, "held-out pairs": self.dev}
        for name, number in rows.items():
            table.add_row(name, f"{number:,}")
        table.add_row("fingerprint", self.fingerprint)
        return table


def report_of(out: Path, index: dict[str, Any], seconds: float | None) -> Report:
    """The report of a corpus by its index; seconds: None when it was already there."""
    dropped = dict(index["preparation"]["counters"])
    return Report(
        out=out,
        read=dropped.pop("read"),
        dropped=dropped,
        kept=index["sentences"],
        bytes=sum(shard["bytes"] for shard in index["shards"]),
        shards=len(index["shards"]),
        dev=index["dev"],
        fingerprint=index["fingerprint"],
        seconds=seconds,
    )
