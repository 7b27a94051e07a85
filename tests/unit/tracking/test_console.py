"""Lines read as the style guide's example; nothing is wrapped, interpreted or drawn off a terminal."""

import io
import math

import pytest
from rich.console import Console

from unsee_dist.log import LOG
from unsee_dist.tracking.console import ConsoleReporter, clock, evaluation_line, step_line

LINE = {
    "step": 1200,
    "loss": 3.41204,
    "agree": 0.0212,
    "redundancy": 3.391,
    "lr": 2.9e-5,
    "decay": 0.999,
    "grad_norm": 0.431,
    "distance": 0.01219,
    "sentences": 38400,
    "sentences_per_s": 212.4,
    "tokens_per_s": 6000.0,
    "wait": 0.031,
    "skipped": 0,
    "time": 1.0,
}


def test_a_training_line_is_the_documented_one():
    assert step_line(LINE, 30000, 102) == (
        "step 01200/30000 | loss 3.4120 agree 0.021 redundancy 3.391 | lr 2.9e-05 decay 0.9990 | grad 0.43 "
        "| distance 0.0122 | 212 sent/s wait 3% | eta 01:42"
    )


def test_absent_keys_are_left_out_and_null_is_nan():
    assert step_line({"step": 1, "loss": math.nan}, 10, 0) == "step 01/10 | loss nan | eta 00:00"
    assert "skipped 2" in step_line(LINE | {"skipped": 2}, 30000, 0)
    assert "41.2k sent/s" in step_line(LINE | {"sentences_per_s": 41234}, 30000, 0)


def test_an_evaluation_line():
    line = {"step": 50, "dev/sts": 70.1234, "dev/effective_rank": 88.04, "dev/std": 0.9, "dev/collapsed": 0.0}
    assert (
        evaluation_line(line, 100, True)
        == "eval 050/100 | sts 70.12 | effective rank 88.0 | std 0.900 | best so far"
    )
    collapsed = evaluation_line(
        line | {"dev/sts": math.nan, "dev/collapsed": 1.0, "dev/std": 0.0}, 100, False
    )
    assert "sts nan" in collapsed
    assert "COLLAPSED: all embeddings are one point" in collapsed
    broken = evaluation_line({"step": 50, "dev/std": math.nan, "dev/collapsed": 1.0}, 100, False)
    assert "BROKEN: embeddings are not finite" in broken


@pytest.mark.parametrize("width", [40, 60, 79, 80, 100, 120, 150])
def test_a_report_is_one_line_of_whole_facts_on_any_terminal(width):
    shown = step_line(LINE | {"skipped": 2}, 30000, 3702, width)
    assert len(shown) <= max(width, len("step 01200/30000 | loss 3.4120 | eta 1:01:42"))
    whole = step_line(LINE | {"skipped": 2}, 30000, 3702)
    assert all(cell in whole for cell in shown.split(" | "))
    assert shown.startswith("step 01200/30000 | loss 3.4120")
    assert shown.endswith("eta 1:01:42")
    scores = {"step": 50, "dev/sts": 68.99, "dev/mrr": 0.4, "dev/recall_at_1": 0.3, "dev/candidates": 1000}
    scores |= {"dev/gain": -0.74, "dev/effective_rank": 3.2, "dev/std": 0.3, "dev/mean_cosine": 0.1}
    evaluated = evaluation_line(scores, 100, True, width)
    assert len(evaluated) <= max(width, len("eval 050/100 | worse than before training"))
    assert "worse than before training" in evaluated
    if width >= 80:
        assert "sts 68.99" in evaluated
        assert "best so far" in evaluated
    assert "damaged" in step_line(LINE | {"damaged": 3}, 30000, 0, 80)


def test_a_terminal_of_80_columns_shows_loss_rates_and_speed():
    assert step_line(LINE, 30000, 102, 80) == (
        "step 01200/30000 | loss 3.4120 | lr 2.9e-05 | grad 0.43 | 212 sent/s | eta 01:42"
    )


def test_an_evaluation_has_a_bar_of_its_own_until_it_ends():
    reporter, out = _console(True)
    reporter.evaluating(0, 3000)
    assert "0/3000 sentences" in out.getvalue()
    reporter.evaluating(3000, 3000)
    assert not reporter._bar.tasks[1].visible
    reporter.close()
    off, out = _console(False)
    off.evaluating(0, 3000)
    off.close()
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (102, "01:42"), (3599.6, "1:00:00"), (90061, "25:01:01")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def _console(terminal):
    out = io.StringIO()
    return ConsoleReporter(
        100, console=Console(file=out, width=40, force_terminal=terminal, highlight=False)
    ), out


def test_lines_are_printed_as_they_are_on_anything_that_is_no_terminal():
    reporter, out = _console(False)
    reporter.advance(3)
    reporter.training(LINE | {"step": 50})
    LOG.info("a [bold]bracket[/bold] " + "long " * 30)
    reporter.warn("careful")
    reporter.close()
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step 050/100 | loss 3.4120")
    assert "[bold]bracket[/bold]" in lines[1]
    assert "\x1b" not in out.getvalue()


def test_a_bar_is_drawn_on_a_terminal_and_removed():
    reporter, out = _console(True)
    reporter.advance(42)
    reporter._bar.refresh()
    assert "42/100" in out.getvalue()
    reporter.close()
    reporter.close()


def test_an_evaluation_says_that_it_is_worse_than_before_training_and_how_it_has_collapsed():
    line = {"step": 50, "dev/sts": 68.99, "dev/gain": -0.74, "dev/effective_rank": 3.2, "dev/std": 0.3}
    assert evaluation_line(line, 100, True) == (
        "eval 050/100 | sts 68.99 | gain -0.740 | effective rank 3.2 | std 0.300 | worse than before training: dev/sts 68.99, "
        "before 69.73 | best so far"
    )
    assert "COLLAPSED: effective rank 3.2, std 0.3" in evaluation_line(
        line | {"dev/collapsed": 1.0}, 100, False
    )


def test_the_closing_table_shows_only_what_was_measured():
    reporter, out = _console(False)
    columns = {"before": {"dev/sts": 54.1}, "best (step 90)": {"dev/sts": 70.5, "dev/std": 0.9}}
    reporter.summary(columns, {"best": "runs/a/best"}, ["unsee evaluate runs/a/best"])
    text = out.getvalue()
    assert "54.10" in text
    assert "70.50" in text
    assert "mrr" not in text
    assert "best: runs/a/best" in text
    assert text.rstrip().endswith("next: unsee evaluate runs/a/best")


def test_a_console_that_is_closed_gives_the_lines_back_to_stderr(capsys):
    reporter, out = _console(False)
    left_open, _ = _console(False)  # of a run that died in this process
    second, newest = _console(False)
    LOG.info("while it is open")
    for each in (second, left_open, reporter):
        each.close()
    LOG.info("afterwards")
    assert newest.getvalue() == "while it is open\n"
    assert out.getvalue() == ""
    assert capsys.readouterr().err == "afterwards\n"
