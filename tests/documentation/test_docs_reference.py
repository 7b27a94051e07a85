"""The reference has every key, command, number and exit code, each with its meaning. Sphinx is not needed for that."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
from integration.tiny import REPOSITORY

from unsee_dist.config.load import LEGAL
from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.errors import ExitCode
from unsee_dist.metrics import names
from unsee_dist.objectives import OBJECTIVES
from unsee_dist.sweep.settings import OWN


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        import reference_pages
    finally:
        sys.path.pop(0)
    return reference_pages


def rows(page: str) -> dict[str, list[str]]:
    """First cell without backticks -> the other cells, of every table."""
    lines = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    cells = [re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |")) for line in lines]
    plain = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in line] for line in cells]
    return {first.replace("`", ""): rest for first, *rest in plain}


def test_every_setting_has_type_default_meaning_and_what_a_second_start_may_do(reference) -> None:
    found = rows(reference.configuration())
    assert set(LEGAL) - set(found) == {"objective.name"}
    for key in set(LEGAL) - {"objective.name"}:
        assert all(found[key]), key
        assert len(found[key]) == (3 if key.startswith("objective.") else 4)
    assert found["train.batch"][:2] == ["whole number ≥ 2", "`32`"]
    assert found["train.steps"][:2] == ["whole number ≥ 1, or absent", "absent"]
    assert found["checkpoint.keep"][0] == "whole number ≥ 2"
    assert found["seed"][0] == "whole number ≥ 0, < 2^63"
    assert found["parallel.precision"][0] == "`fp32`, `bf16`, `fp16`"
    assert found["data.shards"][0] == "path or name"
    assert found["evaluate.sts"][0] == "path or name, or a list of them, or absent"
    assert found["data.pack"][0] == "`true`, `false`, or `auto`"
    assert found["train.lr"][1] == "`0.0001`"
    assert (found["train.lr"][3], found["train.steps"][3]) == ("refused", "may grow")


def test_every_setting_of_a_sweep_is_there(reference) -> None:
    found = rows(reference.sweep())
    assert set(OWN) <= set(found)
    assert all(all(found[key]) for key in OWN)


def test_every_command_and_option_is_there(reference) -> None:
    page, commands = reference.commands(), dict(reference.all_commands())
    assert {"unsee train", "unsee shards verify", "unsee checkpoint rm", "unsee init"} <= set(commands)
    for path, command in commands.items():
        assert f"## `{path}`\n\n{'' if command.help else '?'}" in page
        own = page.partition(f"## `{path}`\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            if parameter.name != "help" and parameter.param_type_name == "option":
                assert f"`{max(parameter.opts, key=len)}`" in own, (path, parameter.name)
                assert parameter.help, (path, parameter.name)
    prepare = rows(page.partition("## `unsee prepare`")[2].partition("\n## ")[0])
    options = {name.replace("_", "-") for name in PrepareSettings.model_fields}
    assert {f"--{name}" for name in options} <= {first.split()[0] for first in prepare}


def test_every_number_and_exit_code_is_there(reference) -> None:
    found = rows(reference.metrics())
    assert {*names.TRAINING, *names.EVALUATION} <= set(found)
    assert all(found[name][0] for name in (*names.TRAINING, *names.EVALUATION))
    assert found[names.dev(names.STS)][1] == "`evaluate.sts`"
    for name in OBJECTIVES:
        assert any(f"`{name}`" in cells[0] for cells in found.values()), name
    assert not set(names.TRAINING) & set(reference.objective_terms()), (
        "one name in metrics.jsonl, two meanings"
    )
    codes = rows(reference.exit_codes())
    assert {str(int(code)) for code in ExitCode} <= set(codes)
    assert all(codes[str(int(code))][1] for code in ExitCode)


def test_a_page_is_filled_and_a_marker_without_a_page_is_a_mistake(reference) -> None:
    assert "STOPPED" in reference.fill("x\n<!-- generated: exit-codes -->\ny")
    with pytest.raises(KeyError):
        reference.fill("<!-- generated: nothing -->")
    used = {
        name
        for page in (REPOSITORY / "docs").rglob("*.md")
        for name in reference.MARKER.findall(page.read_text())
    }
    assert used == set(reference.GENERATED)


def test_words_are_shown_as_they_are(reference) -> None:
    assert reference.text("a_b [c] <d> `e_f`") == r"a\_b \[c\] \<d\> `e_f`"
    assert reference.text("with --min-words or A_B, a--b") == "with `--min-words` or `A_B`, a--b"
    lines = ["Of z:", "    |z| * 2", "and |z|.", "", "    >>> 1", "    1"]
    assert reference.literal_blocks(lines) == [
        "Of z:", "", "::", "", "    |z| * 2", r"and \|z\|.", "", "", "    >>> 1", "    1", "",
    ]  # fmt: skip
