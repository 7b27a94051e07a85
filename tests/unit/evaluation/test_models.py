"""Which step an export stands at: what the run kept as best/, not what scored highest."""

import json
from pathlib import Path

import pytest

from unsee_dist.evaluation.models import _step


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Untrained, then best, then collapsed under a score that looks better, then healthy and worse."""
    scored = ((0, 90.0, 0.0), (3, 70.0, 1.0), (6, 80.0, 0.0), (9, 60.0, 0.0))
    lines = [{"step": step, "dev/sts": sts, "dev/best": best} for step, sts, best in scored]
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(map(json.dumps, [*lines, {"step": 10, "loss": 1.0}])) + "\n"
    )
    return tmp_path


def test_best_is_what_the_run_kept_and_final_its_last_step(run: Path) -> None:
    assert [_step(run, which) for which in ("best", "final", "step-00000003")] == ["step3", "step10", ""]


def test_records_that_do_not_say_give_no_step(run: Path, tmp_path: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')  # cut off by a kill: the line is left out
    assert _step(run, "best") == "step3"
    with (run / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 12}\n')  # now it is damage in the middle
    assert _step(run, "best") == _step(tmp_path / "moved", "final") == ""
