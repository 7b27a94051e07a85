"""What was found: a level, what was looked at, what is there, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from textwrap import wrap
from typing import Any

from unsee_dist.errors import ExitCode


class Level(IntEnum):
    """PASS: a run can begin. WARN: it can, and something will be slow or missing. FAIL: it cannot."""

    PASS = 0
    WARN = 1
    FAIL = 2


BETWEEN = "between hosts"  # in place of a host: what no host has alone


@dataclass(frozen=True)
class Finding:
    """remedy: what to do, "" where there is nothing to do. host: "" before the ranks have told each other, or BETWEEN."""

    level: Level
    check: str
    what: str
    remedy: str = ""
    host: str = ""


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """By the worst: a FAIL is a mistake that somebody can mend; a warning stops no script."""
    worst = max((each.level for each in findings), default=Level.PASS)
    return ExitCode.MISTAKE if worst is Level.FAIL else ExitCode.COMPLETE


def by_host(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Findings under their host, each once; those that all of several hosts share under "all N hosts", before the others."""
    hosts = hosts_of(findings)
    unique = list(dict.fromkeys(findings))
    if len(hosts) < 2:
        return dict.fromkeys(hosts, unique)
    everywhere, own = f"all {len(hosts)} hosts", {host: list[Finding]() for host in (*hosts, BETWEEN)}
    shared: list[Finding] = []
    for each in unique:
        if all(replace(each, host=host) in unique for host in hosts):
            if each.host == hosts[0]:
                shared.append(replace(each, host=everywhere))
        else:
            own[each.host].append(each)
    return {name: rows for name, rows in ({everywhere: shared} | own).items() if rows}


def hosts_of(findings: Iterable[Finding]) -> list[str]:
    return [host for host in dict.fromkeys(each.host for each in findings) if host != BETWEEN]


def as_text(findings: Sequence[Finding], ranks: int, width: int) -> str:
    """One table by host, in lines of at most `width` columns where words allow it."""
    lines = []
    for host, rows in by_host(findings).items():
        lines.append(host)
        for row in rows:
            rest = " " * 22
            lines += _wrapped(row.what, width, f"  {row.level.name}  {row.check:<13} ", rest)
            lines += _wrapped(row.remedy, width, f"{rest}-> ", f"{rest}   ")
    counts = {level: sum(each.level is level for each in dict.fromkeys(findings)) for level in Level}
    total = ", ".join(f"{count} {level.name}" for level, count in counts.items())
    hosts = len(hosts_of(findings))
    return "\n".join(
        [*lines, f"{ranks} rank{'s' * (ranks != 1)} on {hosts} host{'s' * (hosts != 1)}: {total}"]
    )


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    return wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def as_json(findings: Sequence[Finding], ranks: int) -> dict[str, Any]:
    """All of it for a machine: the worst level by its name, and every finding once."""
    worst = max((each.level for each in findings), default=Level.PASS)
    rows = [asdict(each) | {"level": each.level.name} for each in dict.fromkeys(findings)]
    return {"worst": worst.name, "ranks": ranks, "hosts": sorted(hosts_of(findings)), "findings": rows}
