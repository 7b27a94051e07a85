"""Part of `make torture` for CI: every failpoint once and a few random instants, over half of the cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from torture.torture import FAILPOINTS, torture


@pytest.mark.slow
def test_killed_runs_end_as_runs_never_killed(tmp_path: Path) -> None:
    cells = ["0-bf16", "1-fp32", "2-bf16", "3-bf16"]
    assert torture(tmp_path, cells, len(FAILPOINTS) + 7, seed=1, console=Console(stderr=True)) == []
