"""docs/howto/settings.md: its table is what its rules say, its commands are its table, its measured numbers are in the results."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache

import pytest
from documentation import blocks
from documentation.blocks import REPOSITORY

from unsee_dist.bench import scale
from unsee_dist.config import load
from unsee_dist.config.sections import RunConfig, TrainSettings
from unsee_dist.forecast.derived import advice, derive
from unsee_dist.training.schedule import total_steps

PAGE = REPOSITORY / "docs" / "howto" / "settings.md"
MEASURED = json.loads((REPOSITORY / "docs" / "gpu-h200.json").read_text(encoding="utf-8"))["rows"]
LAUNCHER = re.compile(r"^.*?(?:unsee train|--config|slurm/train\.sh) ", re.DOTALL)
EPOCHS = {1: 5.0}  # of the other rows: one


@dataclass(frozen=True)
class Row:
    number: int
    sentences: int
    gpus: int
    batch: int
    a_gpu: int
    steps: int
    lr: float
    decay: float
    preset: str
    hours: float


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" `").replace(",", "") for cell in line.strip("|").split("|")]
        if len(cells) == 10 and cells[0].isdecimal():
            whole = [int(cell) for cell in cells[:6]]
            found.append(Row(*whole, float(cells[6]), float(cells[7]), cells[8], float(cells[9])))
    return found


def step_ms(case: str) -> float:
    [found] = [row["step_ms"] for row in MEASURED if row["case"] == case]
    return float(found)


@cache
def seconds(gpus: int) -> float:
    """Of a step, as the page says: the slowest that was measured, and what is sent."""
    computed = max(step_ms("batch 32"), step_ms("batch 1,024")) / 1000
    if gpus == 1:
        return computed
    counted = {"ranks": gpus, "objective": "vicreg", "zero": 1, "collectives": 8}  # docs/results/scale.md
    [projected] = scale.projection([counted])
    return computed + projected["step_ms"] / 1000 - scale.COMPUTATION_S


def command_of(row: Row) -> RunConfig:
    """The command for a row, as its own settings. Rows 2 and 3 have one."""
    title = "Rows 2 and 3" if row.number in (2, 3) else f"Row {row.number},"
    [text] = [part for part in PAGE.read_text().split("\n\n") if f"\n{title}" in f"\n{part}"][:1]
    block = PAGE.read_text().partition(text)[2].partition("```bash\n")[2].partition("```")[0]
    [words] = blocks.commands(block)
    preset, *overrides = LAUNCHER.sub("", " ".join(words)).split()
    assert preset == row.preset
    for option in ("--nodes=8", "--ntasks-per-node=8"):
        assert (option in words) is (row.gpus == 64)
    assert ("--nproc-per-node" in words) is (row.gpus == 8)
    return load(preset, overrides)


def test_the_table_goes_from_ten_thousand_to_a_billion_on_1_to_64() -> None:
    found = rows()
    assert [row.number for row in found] == list(range(1, 11))
    assert (found[0].sentences, found[-1].sentences) == (10**4, 10**9)
    assert {row.gpus for row in found} == {1, 8, 64}


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row.number))
def test_a_row_is_what_the_rules_say(row: Row) -> None:
    train = TrainSettings(batch=row.batch, epochs=EPOCHS.get(row.number, 1.0))
    assert row.a_gpu == train.part(row.gpus)
    assert row.steps == total_steps(train, row.sentences) >= 1500
    assert row.lr == pytest.approx(min(1e-4 * math.sqrt(row.batch / 32), 2e-4))
    assert row.decay == (0.999 if row.steps <= 50_000 else round(1 - 31.25 / row.steps, 4))
    assert row.preset == ("unsee-corinfomax" if row.batch <= 128 else "unsee-vicreg")
    assert row.hours == round(row.steps * seconds(row.gpus) / 3600, 1)


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row.number))
def test_a_command_is_its_row_and_the_dry_run_has_nothing_against_it(row: Row) -> None:
    config = command_of(row)
    assert (config.train.batch, config.train.lr, config.target.decay) == (row.batch, row.lr, row.decay)
    assert config.train.epochs == EPOCHS.get(row.number, 1.0)
    assert config.data.tokenise is (row.sentences >= 10**7)
    derived = derive(config, row.sentences, row.gpus)
    assert derived.steps == row.steps
    assert list(advice(config, derived)) == []


def test_the_weight_of_barlow_twins_is_the_rule_at_the_point_that_was_measured() -> None:
    def weight(batch: int, width: int) -> float:
        found: float = load("recipe-barlow").objective.at(batch, width).settings()["weight"]
        return found

    assert round(weight(32, 256), 4) == 0.0005
    assert round(weight(32, 768), 5) == 0.00005
    assert round(weight(1024, 768), 4) == 0.0017
    assert load("unsee-barlow").objective.settings()["weight"] == 0.0051
    assert "`objective.weight = batch / width²`" in PAGE.read_text(encoding="utf-8")


def test_what_was_measured_is_in_the_results() -> None:
    """Each decimal of a row of the table stands in a page that the row links to, or is a ratio of two of gpu-h200.json."""
    section = PAGE.read_text(encoding="utf-8").partition("## What was measured")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ") and "](" in line]
    assert len(table) == 14
    ratios = {f"{step_ms('precision fp32') / step_ms('batch 1,024'):.1f}"}
    for line in table:
        pages = [PAGE.parent / link for link in re.findall(r"\]\(([^)#]+)", line)]
        there = "".join(page.read_text(encoding="utf-8") for page in pages)
        for number in re.findall(r"\d+\.\d+|\d{1,3},\d{3}|\d+%|\de-\d", line.rpartition(" | ")[0]):
            assert number in there or number in ratios, (number, line)
    assert round(step_ms("ZeRO-3") / step_ms("batch 1,024")) == 3
