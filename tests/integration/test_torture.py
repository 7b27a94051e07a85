"""Part of `make torture` for CI: every failpoint and a few random instants, on two of the cells."""

from __future__ import annotations

import sys

import pytest
from integration import tiny


@pytest.mark.slow
@pytest.mark.timeout(2400)  # 5 minutes on two cores busy with other work; CI has its own end
def test_killed_runs_end_as_runs_never_killed() -> None:
    torture = [sys.executable, "tests/torture/torture.py", "--cells", "1-bf16,3-fp32", "--ways", "one"]
    done = tiny.run([*torture, "--instants", "5", "--seed", "1"], timeout_s=2300)
    assert done.returncode == 0, done.stderr
    assert "22 kills, 0 wrong" in done.stderr
