"""The door through which deepspeed enters: imported without what this project does not use."""

from __future__ import annotations

import sys
from collections import defaultdict
from types import ModuleType


def import_deepspeed() -> ModuleType:
    """Import deepspeed without mlflow and without a probe of its compiled operations.

    deepspeed's autotuner, which is not used here, imports mlflow on every rank where it is installed: 1,500 modules, 2 s,
    and as many files that all ranks read from a shared disk at once. mlflow can be imported again afterwards.

    The first reader of `deepspeed.ops.__compatible_ops__` makes deepspeed probe 30 operations: gcc and nvcc are started,
    GPUs are asked, and what is missing is printed, on every rank. `init_distributed` reads it. Nothing compiled is used
    here, so every operation is declared unavailable before; the CPU collective, too, which would otherwise be compiled
    (a minute, a compiler, and a lock file that a killed process leaves for all later ones to wait on; gloo does its work).
    """
    unimported = "mlflow" not in sys.modules
    if unimported:
        sys.modules["mlflow"] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        import deepspeed
    finally:
        if unimported:
            del sys.modules["mlflow"]
    # the name itself, not an item of it: to read the name would start the probe
    deepspeed.ops.__compatible_ops__ = defaultdict(bool)
    return deepspeed
