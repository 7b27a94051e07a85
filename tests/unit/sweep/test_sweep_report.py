"""A report names the best, explains the variance where it can, and its preset is the trial's configuration."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from unsee_dist.config import load
from unsee_dist.sweep import ledger
from unsee_dist.sweep.ledger import LedgerRow
from unsee_dist.sweep.load import load_sweep
from unsee_dist.sweep.report import rungs, write_confirmation, write_report
from unsee_dist.sweep.settings import Sweep
from unsee_dist.sweep.trial import trial_folder

RATES = [1e-5, 3e-5, 1e-4, 2e-4, 3e-4, 5e-4, 8e-4, 1e-3]


def swept(folder: Path, best_rate: float) -> tuple[Sweep, list[LedgerRow]]:
    """A sweep whose score depends on the learning rate alone, with runs as training leaves them."""
    path = folder / "mine.yaml"
    path.write_text(
        f"""extends: base.yaml
train: {{steps: 90}}
evaluate: {{sts: x.tsv}}
sweep: {{dir: {folder / "sweep"}, grace: 10}}
space:
  objective.name: {{choice: [vicreg, simcse]}}
  train.lr: {{loguniform: [1e-5, 1e-3]}}
  objective.temperature: {{choice: [0.05, 0.1], when: {{objective.name: simcse}}}}
""",
        encoding="utf-8",
    )
    sweep = load_sweep(str(path))
    rows = []
    for number, rate in enumerate(RATES, start=1):
        point = {"objective.name": "vicreg", "train.lr": rate}
        if number % 2:
            point |= {"objective.name": "simcse", "objective.temperature": "0.1"}
        score = 70 - 1e4 * abs(rate - best_rate)
        run = trial_folder(sweep.folder, f"t{number}")
        run.mkdir(parents=True)
        lines = [{"step": step, "dev/sts": score - 90 / step} for step in (10, 30, 90)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows.append(LedgerRow(number, f"t{number}", "complete", point, reached=90, step=90, score=score))
    rows.append(
        LedgerRow(
            9, "t9", "broken", {"objective.name": "vicreg", "train.lr": 9e-4}, score=99.0, why="collapsed"
        )
    )
    ledger.write(sweep.folder, rows)
    return sweep, rows


def test_the_report_of_a_sweep(tmp_path: Path) -> None:
    sweep, rows = swept(tmp_path, best_rate=3e-4)
    folder = write_report(sweep, rows)
    found = json.loads((folder / "report.json").read_bytes())
    assert found["best"]["trial"] == "t5"
    weights = found["importance"]
    assert weights["train.lr"] > 0.7 > weights["objective.name"]
    table = (folder / "trials.md").read_text(encoding="utf-8").splitlines()
    assert table[2].startswith("| 5 | complete | 70 ")
    assert table[2 + 8].startswith("| 9 | broken |")
    assert "Not every trial has objective.temperature: left out there." in table
    assert "Trial 9: collapsed" in table
    for name in ("curves.png", "parallel.png", "importance.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    preset = load(str(folder / "best.yaml"))
    expected = sweep.config(dict(rows[4].point))
    assert "run" not in yaml.safe_load(
        (folder / "best.yaml").read_text(encoding="utf-8")
    )  # named by its file
    skipped = {"run", "resume"}
    assert preset.model_dump(exclude=skipped) == expected.model_dump(exclude=skipped)


def test_rungs_are_the_schedulers(tmp_path: Path) -> None:
    sweep, _ = swept(tmp_path, best_rate=3e-4)
    assert rungs(sweep) == [10, 30]


def test_a_confirmation_compares_seed_by_seed(tmp_path: Path) -> None:
    sweep, _ = swept(tmp_path, best_rate=3e-4)
    rows = []
    for seed, (best, base) in enumerate([(71.0, 70.0), (72.0, 72.0), (73.0, 71.0)]):
        for point, score in (({"train.lr": 3e-4}, best), ({}, base)):
            rows.append(
                LedgerRow(
                    len(rows) + 1, f"c{len(rows)}", "complete", point | {"seed": seed}, step=90, score=score
                )
            )
    write_confirmation(sweep, rows)
    text = (sweep.folder / "report" / "confirm.md").read_text(encoding="utf-8")
    assert "| best of the sweep | 3 | 72.00 ± 1.00 | 71.00, 72.00, 73.00 |" in text
    assert "| difference, seed by seed | 3 | 1.00 ± 1.00 | +1.00, +0.00, +2.00 |" in text
