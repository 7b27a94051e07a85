"""slurm/sweep.sh on a real Slurm cluster of two nodes: a real Ray over both, a real sweep, stopped and requeued."""

from __future__ import annotations

from integration import tiny as launch


def test_sweep_sh_says_how_it_is_used() -> None:
    done = launch.run(["bash", "slurm/sweep.sh"])
    assert done.returncode == 2
    assert "usage: sbatch slurm/sweep.sh" in done.stderr
