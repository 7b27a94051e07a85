"""A page: one HTML file that needs no network and no script, light and dark, narrow and wide, on a screen and on paper.

Every text is masked (masking.py) and then escaped, in the template's `finalize` and autoescape and nowhere else. SVG of plots.py
is the only markup that comes in from outside.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from unsee_dist import __version__
from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import write_file
from unsee_dist.files.room import try_file
from unsee_dist.masking import published
from unsee_dist.report.facts import Event, Next, Table
from unsee_dist.report.headline import Verdict
from unsee_dist.report.plots import Plot
from unsee_dist.report.sentences import Cluster, Neighbours
from unsee_dist.tracking.recorder import PAGE

NAME = PAGE
MARK = '<meta name="generator" content="unsee_dist'  # of a file that may be replaced
HEAD_BYTES = 2048


class PageBlock:
    """A part of a section, shown by the template as its kind wants."""

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Words(PageBlock):
    sentences: Sequence[str]


@dataclass(frozen=True)
class Plots(PageBlock):
    plots: Sequence[Plot]


@dataclass(frozen=True)
class Grid(PageBlock):
    """A table. summary: it is folded away under these words; "" = it is open. codes: its first column is code."""

    table: Table
    summary: str = ""
    codes: bool = False


@dataclass(frozen=True)
class Nearest(PageBlock):
    """head: of the columns after the sentence."""

    head: Sequence[str]
    rows: Sequence[Neighbours]


@dataclass(frozen=True)
class Clusters(PageBlock):
    clusters: Sequence[Cluster]


@dataclass(frozen=True)
class Bars(PageBlock):
    """Shares, 0 to 1, by name."""

    bars: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Events(PageBlock):
    events: Sequence[Event]


@dataclass(frozen=True)
class Commands(PageBlock):
    commands: Sequence[Next]


@dataclass(frozen=True)
class PageSection:
    """note: a sentence below the title. narrow: two of them fit beside each other on a wide screen."""

    title: str
    blocks: Sequence[PageBlock]
    note: str = ""
    narrow: bool = False


@dataclass(frozen=True)
class Page:
    """legend: places of colours and what they are; [] where there is one. subtitle: where it is from."""

    title: str
    subtitle: str
    verdict: Verdict
    sections: Sequence[PageSection]
    legend: Sequence[tuple[int, str]] = ()


def render(page: Page) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_published,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made = time.strftime("%Y-%m-%d %H:%M")
    return (
        environment.get_template("page.html.jinja").render(page=page, version=__version__, made=made) + "\n"
    )


def check_target(path: Path) -> None:
    """UserError: no page can be written under this name. Before the work for one; only a folder is made."""
    with writing(path):
        if path.exists():
            with path.open("rb") as file:
                ours = MARK.encode() in file.read(HEAD_BYTES)
            if not ours:
                raise UserError(
                    f"{path} is not a page that unsee report wrote. Nothing was changed: write --out with another name, or move it."
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        try_file(path)


def write_page(page: Page, path: Path) -> None:
    """Replace an older page. UserError: something else has this name, or it cannot be written."""
    check_target(path)
    with writing(path):
        write_file(path, render(page))


def _published(value: Any) -> Any:
    return (
        published(value) if type(value) is str else value
    )  # Markup has its own type: plots are markup already
