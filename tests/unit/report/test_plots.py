"""A plot is SVG in the page's colours: its texts are escaped text, its ids clash with no other plot's."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from unsee_dist.report.plots import (
    MOST_POINTS,
    NAMES,
    PLACEHOLDER,
    Dot,
    HorizontalLine,
    Panel,
    Plot,
    Series,
    draw,
)


def drawn(*series: Series, **more: object) -> Plot:
    plot = draw(Panel("STS", "Spearman x 100", series, **more))  # type: ignore[arg-type]
    assert plot is not None
    return plot


def texts(plot: Plot) -> list[str]:
    return [each.text or "" for each in ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_colour_is_a_variable_of_the_page() -> None:
    plot = drawn(
        *(Series(f"run {place}", [1, 2], [place, 3.0], place) for place in range(8)),
        levels=[HorizontalLine("before", 2.0)],
    )
    assert PLACEHOLDER not in plot.svg
    used = set(re.findall(r"var\(--(\w+)\)", plot.svg))
    assert used <= {*NAMES, "font"}
    assert {f"s{number}" for number in range(1, 9)} <= used
    # black and white of matplotlib's own defaults would vanish in one of the two schemes
    assert not re.findall(r"#[0-9a-f]{6}", plot.svg)


def test_the_texts_are_escaped_and_no_mathematics() -> None:
    name = '<script>"$x$"</script>&$\\frac{1}$'
    plot = drawn(Series("a", [1, 2], [1, 2]), levels=[HorizontalLine(name, 1.5)], x_label=name)
    assert "<script" not in plot.svg
    assert name[-30:] in "".join(texts(plot))
    assert any("$x$" in text for text in texts(plot) if text.endswith("1.5"))


def test_ids_do_not_clash() -> None:
    one, two = drawn(Series("a", [1, 2], [1, 2])), draw(Panel("MRR", "", [Series("a", [1, 2], [1, 2])]))
    assert two is not None
    ids = [re.findall(r' id="([^"]+)"', plot.svg) for plot in (one, two)]
    assert ids[0], "clip paths and marks have ids, which are referred to"
    assert len(set(ids[0])) == len(ids[0])
    assert not set(ids[0]) & set(ids[1])


def test_a_level_far_away_is_named_below_the_title_and_does_not_press_the_line_flat() -> None:
    line = Series("a", [0, 1, 2], [60.0, 60.4, 60.9])
    near, far = (
        drawn(line, baselines=[HorizontalLine("TF-IDF", 60.1)]),
        drawn(line, baselines=[HorizontalLine("TF-IDF", 75.46)]),
    )
    assert far.unit == "Spearman x 100; TF-IDF 75.46 (above the plot)"
    assert near.unit == "Spearman x 100"
    assert "TF-IDF 60.10" in texts(near)
    assert not any(text.startswith(("7", "TF")) for text in texts(far))  # no tick up there
    assert "before 75.46" in texts(drawn(line, levels=[HorizontalLine("before", 75.46)]))


@pytest.mark.parametrize("y", [[], [math.nan, math.nan]])
def test_nothing_to_draw_is_no_plot(y: list[float]) -> None:
    assert draw(Panel("STS", "", [Series("a", list(range(len(y))), y)])) is None


def test_one_point_and_a_dot_are_seen() -> None:
    assert "<use " in drawn(Series("a", [1], [2.0])).svg
    assert draw(Panel("STS", "", (), dots=[Dot(1.0, 2.0, 0, "x")])) is not None


def test_a_long_line_is_averaged_within_its_range_and_holes_stay_out() -> None:
    count = 50 * MOST_POINTS
    y = [math.nan if step % 7 == 0 else 5.0 + (step % 2) for step in range(count)]
    plot = drawn(Series("a", list(range(count)), y))
    assert len(plot.svg) < 60_000
    assert "nan" not in plot.svg.lower().replace("dominant", "")
    short = drawn(Series("a", list(range(10)), [1.0] * 10))
    assert "opacity: 0.2" in plot.svg
    assert "opacity: 0.2" not in short.svg


def test_a_logarithmic_axis_is_left_where_a_value_is_not_positive() -> None:
    assert drawn(Series("a", [1, 2], [0.0, 1.0]), log_y=True)
    both = drawn(Series("a", [1e-5, 1e-3], [0.1, 1.0]), log_y=True, log_x=True)
    assert {"0.0001", "0.1"} <= set(texts(both))
    assert not any("$" in text for text in texts(both))


def test_choices_are_ticks_and_a_long_one_is_cut() -> None:
    dots = [Dot(0, 1.0, 0), Dot(0, 2.0, 1, "|")]
    plot = drawn(dots=dots, x_ticks=[(0, "a"), (1, "/very/long/path/to/an/encoder")])
    assert {"a", "…h/to/an/encoder"} <= set(texts(plot))
