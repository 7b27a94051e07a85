"""Part of `make torture` for CI: every failpoint once and a few random instants, on two of the cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from torture.torture import FAILPOINTS, torture


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_runs_end_as_runs_never_killed(tmp_path: Path) -> None:
    kills = len(FAILPOINTS) + 3
    assert torture(tmp_path, ["1-bf16", "3-fp32"], kills, seed=1, console=Console(stderr=True)) == []
