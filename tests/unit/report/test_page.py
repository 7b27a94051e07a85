"""A page stands alone: nothing is loaded, nothing runs, every text is masked and then escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from unit.report.made_runs import make_run

from unsee_dist.errors import UserError
from unsee_dist.report import of_runs
from unsee_dist.report.facts import Event, Next, Table
from unsee_dist.report.headline import Tile, Verdict
from unsee_dist.report.of_runs import Looked, page_of
from unsee_dist.report.page import (
    Bars,
    Clusters,
    Commands,
    Events,
    Grid,
    Nearest,
    Page,
    PageBlock,
    PageSection,
    Plots,
    Words,
    render,
    write_page,
)
from unsee_dist.report.plots import HorizontalLine, Panel, Series, draw
from unsee_dist.report.run_files import open_run
from unsee_dist.report.sentences import Cluster, Neighbour, Neighbours

EVIL = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'&{{ 7 * 7 }}"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Checked(HTMLParser):
    """Every tag closed in its order; all tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def everywhere(text: str) -> Page:
    """A page with a text in every place that takes one."""
    plot = draw(
        Panel(text, text, [Series(text, [1, 2], [1, 2])], levels=[HorizontalLine(text, 1.5)], x_label=text)
    )
    assert plot is not None
    blocks: list[PageBlock] = [
        Words([text]),
        Plots([plot]),
        Grid(Table([text], [[text]]), text, codes=True),
        Nearest([text], [Neighbours(text, [[Neighbour(text, 0.5, True)]])]),
        Clusters([Cluster(0, text, 3), Cluster(1, "", 2)]),
        Bars([(text, 0.5)]),
        Events([Event(text, text, text)]),
        Commands([Next(text, text)]),
    ]
    verdict = Verdict(text, "good", [Tile(text, text, text)], [text])
    return Page(text, text, verdict, [PageSection(text, blocks, text)], [(0, text)])


def test_every_text_is_escaped() -> None:
    html = render(everywhere(EVIL))
    page = Checked(html)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "".join(page.words).count(EVIL) >= 20
    assert "49" not in "".join(page.words)  # a text is no template


def test_nothing_is_loaded_from_anywhere() -> None:
    page = Checked(html := render(everywhere("x")))
    assert not {"link", "iframe", "script", "object", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "data", "action"):
            assert value.startswith("#"), (name, value)
    assert "@import" not in html
    assert not [place for place in re.findall(r"url\(([^)]*)\)", html) if not place.startswith("#")]
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert any("default-src 'none'" in value for name, value in page.attributes if name == "content")


def test_secrets_and_the_home_folder_are_masked_before_they_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "pass<&word>99"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    monkeypatch.setenv("HOME", str(tmp_path))
    html = render(everywhere(f"{secret} at {tmp_path}/runs/x and s3://me:hidden77@host/x?sig=abc123"))
    for text in (secret, "pass&lt;", "word&gt;99", str(tmp_path), "hidden77", "abc123"):
        assert text not in html
    assert "~/runs/x" in html
    assert "***" in html


def test_a_run_with_an_evil_name_and_evil_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    name = f"run.name={EVIL} hf_abcdefgh $x$"
    folder = make_run(
        tmp_path / "<b>a&b", {20: 61.0}, name, "model.encoder=<i>enc</i>", **{"dev/sts/<u>": 3.0}
    )
    runs = [open_run(folder), open_run(make_run(tmp_path / "b", {20: 61.0}))]
    for shown in (runs[:1], runs):
        html = render(page_of(shown, Looked({"dev/sts": 75.0}, problems=[EVIL])))
        page = Checked(html)
        assert not {"script", "img", "b", "i", "u"} & set(page.tags)
        assert "hf_abcdefgh" not in html


def test_an_older_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_page(everywhere("first"), path)
    write_page(everywhere("second"), path)
    assert "second" in path.read_text(encoding="utf-8")
    path.write_text("<html>mine</html>")
    with pytest.raises(UserError, match="not a page that unsee report wrote"):
        write_page(everywhere("third"), path)
    assert path.read_text() == "<html>mine</html>"
    with pytest.raises(UserError, match="cannot be written"):
        write_page(everywhere("x"), tmp_path)


def test_a_foreign_file_is_refused_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_runs, "look", lambda _: pytest.fail("encoded"))
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "file").touch()
    run = make_run(tmp_path / "run")
    for out, why in (
        ("mine.html", "is not a page that unsee report wrote"),
        ("file/x.html", "cannot be written"),
        ("s3://bucket/x.html", "--out s3://bucket/x.html is a URL"),
    ):
        with pytest.raises(UserError, match=why):
            of_runs.report_runs([run], Path(out) if "://" in out else tmp_path / out)
    assert (tmp_path / "mine.html").read_text() == "mine"
