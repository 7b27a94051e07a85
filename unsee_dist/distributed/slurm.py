"""A bare `srun`, without a launcher of torch's: the ranks of a Slurm step, and where they meet."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, MutableMapping

from unsee_dist.errors import UserError


def adopt_slurm(environment: MutableMapping[str, str]) -> None:
    """Translate a bare `srun` (one task a rank) into the variables of torchrun; other environments stay as they are.

    SLURM_STEP_NUM_TASKS exists only inside a step: a batch script that calls python directly stays one process.
    """
    if "RANK" in environment or "SLURM_STEP_NUM_TASKS" not in environment:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    if "MASTER_ADDR" not in environment:
        environment["MASTER_ADDR"] = _first_host(environment["SLURM_STEP_NODELIST"])
    environment.setdefault("MASTER_PORT", str(port_of_job(int(environment["SLURM_JOB_ID"]))))


def tasks_of_node(environment: Mapping[str, str]) -> int:
    """Tasks of the step on this node; 1 outside of a step. Slurm lists them by node: 8(x2),4 is 8, 8, 4."""
    tasks: list[int] = []
    for text in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        count, _, times = text.rstrip(")").partition("(x")
        tasks += [int(count)] * int(times or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return tasks[node] if node < len(tasks) else max(tasks)


def port_of_job(job: int) -> int:
    """The port at which the ranks of a Slurm job meet, as in slurm/*.sh: 20000 to 32767, below Linux's ephemeral ports
    (from 32768 on), one of which any outgoing connection of the node may hold."""
    return 20000 + job % 12768


def _first_host(nodelist: str) -> str:
    """The address of the first node: Slurm's name of a node need not be one that the network knows."""
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=True
        )
        node = ["scontrol", "show", "node", listed.stdout.split()[0]]
        shown = subprocess.run(node, capture_output=True, text=True, check=True)
        return re.findall(r"NodeAddr=(\S+)", shown.stdout)[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            f"SLURM_STEP_NODELIST = {nodelist} could not be read by scontrol. Export MASTER_ADDR in the batch script."
        ) from error
