"""The page of `unsee report` in a real browser: narrow and wide, light and dark, on paper; it asks no network for anything."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster.chromium import Browser, chromium
from unit.report.made_runs import make_run

from unsee_dist.report.encoders import Encoded
from unsee_dist.report.of_runs import Looked, page_of
from unsee_dist.report.page import write_page
from unsee_dist.report.run_files import open_run

WIDTHS = (400, 900, 1600)
SCHEMES = ("light", "dark")
SMALLEST_PX = 9.0  # of a text in a plot
# Every text of the page: its size on the screen, its colour and the first background behind it that is not transparent.
TEXTS = """
const seen = [];
for (const each of document.querySelectorAll('h1, h2, h3, p, td, th, dd, dt, li, code, summary, svg text')) {
  const box = each.getBoundingClientRect();
  if (!box.width || !each.textContent.trim()) continue;
  const style = getComputedStyle(each), scale = each.getScreenCTM ? each.getScreenCTM().a : 1;
  let behind = each;
  while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  const colour = each.getScreenCTM ? style.fill : style.color;
  seen.push([each.textContent.trim().slice(0, 40), parseFloat(style.fontSize) * scale, colour,
             getComputedStyle(behind).backgroundColor]);
}
return seen;
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with everything but gold pairs; two runs, one with a long name; a run without a score."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    texts = [
        f"sentence {i} of river and house" if i % 2 else f"number {i} of engine and wheel" for i in range(60)
    ]
    encoders = [
        Encoded(
            name, dict(zip(texts, rng.normal(size=(60, 8)) + 3 * (np.arange(60) % 2)[:, None], strict=True))
        )
        for name in ("before: x", "after: best/ (step 20)")
    ]
    one = open_run(make_run(folder / "a", {10: 60.5, 20: 61.5, 40: 61.0}, "run.name=one"))
    other = open_run(
        make_run(folder / "b", {20: 59.0, 40: 58.0}, f"run.name={'long-' * 12}name", "train.lr=1e-3")
    )
    bare = open_run(make_run(folder / "c", None, reached=7))
    baseline = {"dev/sts": 75.46}
    of = {
        "one": page_of([one], Looked(baseline, encoders=encoders, pool=texts)),
        "two": page_of([one, other], Looked(baseline, problems=["x" * 300])),
        "bare": page_of([bare], Looked()),
    }
    for name, page in of.items():
        write_page(page, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in of}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of "rgb(r, g, b)"."""
    parts = [float(each) / 255 for each in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def show(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.command(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.command("Emulation.setDeviceMetricsOverride", **metrics)
    browser.open(page.as_uri())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["one", "two", "bare"])
def test_it_fits_and_can_be_read(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    show(browser, pages[name], width, scheme)
    assert browser.run("return document.documentElement.scrollWidth") <= width, (
        "nothing is wider than the screen"
    )
    texts = browser.run(TEXTS)
    assert len(texts) > 40
    small = [(text, size) for text, size, _, _ in texts if size < SMALLEST_PX]
    faint = [(text, c, b) for text, _, c, b in texts if contrast(c, b) < 4.5]
    assert not small
    assert not faint
    light = luminance(browser.run("return getComputedStyle(document.body).backgroundColor")) > 0.5
    assert light is (scheme == "light")


@pytest.mark.slow
def test_it_asks_for_nothing_and_runs_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    show(browser, pages["one"], 900, "light")
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.scripts.length") == 0
    # the page's own policy refuses both, whatever got into it
    loaded = browser.run(
        "const image = new Image(); document.body.append(image); image.src = 'https://example.org/x.png';"
        "return new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
        "setTimeout(() => done('none'), 3000); })"
    )
    assert loaded == "img-src"


@pytest.mark.slow
def test_on_paper_it_is_light_and_what_was_folded_is_open(browser: Browser, pages: dict[str, Path]) -> None:
    show(browser, pages["one"], 900, "dark")
    browser.command(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert luminance(browser.run("return getComputedStyle(document.querySelector('.headline')).color")) < 0.4
    # what is folded has a height in some versions of Chromium, and is not seen
    inside = "return document.querySelector('details td').checkVisibility({contentVisibilityAuto: true})"
    assert browser.run(inside)
    browser.command("Emulation.setEmulatedMedia", media="")
    assert not browser.run(inside)
    paper = base64.b64decode(browser.command("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    assert paper.startswith(b"%PDF")
