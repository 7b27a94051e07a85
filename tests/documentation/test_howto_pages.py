"""Pages that explain what a command prints explain all of it: checks of doctor, parts of a report, lines of a dry run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from documentation.blocks import REPOSITORY

from unsee_dist.cli import plan
from unsee_dist.doctor import findings, machine, ranks, services
from unsee_dist.report import of_runs
from unsee_dist.report.curves import groups
from unsee_dist.report.headline import STATES

HOWTO = REPOSITORY / "docs" / "howto"


def first_cells(page: str) -> list[str]:
    lines = (HOWTO / page).read_text(encoding="utf-8").splitlines()
    return [line.split(" | ")[0].removeprefix("| ") for line in lines if re.match(r"\| (?!---)", line)]


def calls(module: object, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def test_each_check_of_doctor_has_a_row_and_each_row_a_check() -> None:
    checks = {
        call.args[1].value
        for module in (machine, services, ranks)
        for call in calls(module, "Finding")
        if isinstance(call.args[1], ast.Constant)
    }
    assert len(checks) > 12
    levels = {level.name for level in findings.Level}
    assert set(first_cells("doctor.md")) == checks | levels | {"check", "level"}


def test_the_bounds_of_doctor_are_those_of_the_page() -> None:
    page = (HOWTO / "doctor.md").read_text(encoding="utf-8")
    for bound in (
        f"a real tensor of {ranks.MIB} MiB",
        f"in {ranks.MEET_S:g} s, and a sum that does not end in {ranks.COLLECTIVE_S:g} s",
        f"WARN below {machine.SHM_GIB:g} GiB, FAIL below {machine.SHM_GIB * 1024 / 16:g} MiB",
        f"WARN below {machine.FILES:,}, FAIL below {machine.FILES // 4}",
        f"less than {machine.FREE_GIB:g} GiB, or fsync above {machine.FSYNC_S:g} s",
        f"below {ranks.SLOW['nccl']:g} GB/s over NCCL, {ranks.SLOW['gloo']:g} over gloo",
        f"more than {ranks.CLOCK_S:g} s",
    ):
        assert bound in page, bound


def test_each_part_of_a_report_has_a_row() -> None:
    titles = {
        call.args[0].value
        for call in calls(of_runs, "PageSection")
        if isinstance(call.args[0], ast.Constant) and call.args[0].value != "Runs"
    } | {group.title for group in groups([], {})}
    rows = " ".join(first_cells("report.md"))
    assert len(titles) > 10
    left_out = {"Pairs, neighbours, a map"}  # in place of the three, where there are none
    assert not [title for title in titles - left_out if title not in rows]
    states = (HOWTO / "report.md").read_text(encoding="utf-8")
    assert not [state for state in STATES if f"`{state}`" not in states]
    assert "At most eight runs" in states
    assert of_runs.MOST_RUNS == 8


def test_each_line_of_a_dry_run_has_a_row() -> None:
    source = Path(plan.__file__).read_text(encoding="utf-8")
    printed = set(re.findall(r'f?"  ([a-z][a-z ]+?)(?:, by formula|, tried on| on \{|:)', source))
    assert {"steps", "disk", "note", "memory a rank"} <= printed
    rows = " ".join(first_cells("dry-run.md"))
    assert not [line for line in printed if line not in rows], printed


def test_an_index_lists_its_pages_for_readers_of_the_files_too() -> None:
    """A toctree is a list in the built site only."""
    for index in (REPOSITORY / "docs").glob("*/index.md"):
        page = index.read_text(encoding="utf-8")
        [tree] = re.findall(r"```\{toctree\}\n:hidden:\n\n(.*?)```", page, re.DOTALL)
        listed = re.findall(r"^- \[(.+)\]\(([\w-]+)\.(?:md|ipynb)\)$", page, re.MULTILINE)
        assert [name for _, name in listed] == tree.split(), index
        assert all(title for title, _ in listed)
