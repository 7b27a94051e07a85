"""Bars of work that is counted: tasks of an evaluation, trials of a sweep. On a terminal one line, elsewhere a line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from unsee_dist.log import printed_by
from unsee_dist.tracking.console import OnConsole

Begin = Callable[[str], None]
Update = Callable[[int, str], None]


@contextmanager
def _bar(console: Console, total: int, what: str) -> Iterator[Update]:
    """A bar: how many of `total` are done, and words about the rest. Lines of the logger are printed above it."""
    columns = (
        TextColumn("{task.completed}/{task.total} {task.description}"),
        BarColumn(None),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, transient=True, expand=True) as bars,
        printed_by(OnConsole(console)),
    ):
        task = bars.add_task(what, total=total, now="")
        yield lambda done, now: bars.update(task, completed=done, now=now)


@contextmanager
def counting(console: Console, total: int, what: str) -> Iterator[Begin]:
    """Gives the function to call with the name of each piece of work when it begins."""
    begun = 0
    if total == 0 or console.quiet or not console.is_terminal:

        def begin(name: str) -> None:
            nonlocal begun
            begun += 1
            console.print(f"{begun}/{total} {name}")

        yield begin
        return
    with _bar(console, total, what) as update:

        def begin_on_bar(name: str) -> None:
            nonlocal begun
            update(begun, name)
            begun += 1

        yield begin_on_bar


@contextmanager
def counted(console: Console, total: int, what: str) -> Iterator[Update]:
    """Gives the function to call with how many are done, and words about the rest; elsewhere than on a terminal it
    prints nothing."""
    if console.quiet or not console.is_terminal:
        yield lambda _done, _now: None
        return
    with _bar(console, total, what) as update:
        yield update
