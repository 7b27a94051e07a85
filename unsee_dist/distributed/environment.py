"""The variables of this process that joining a world sets, for deepspeed, torch and the workers; and how they are given back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from unsee_dist.distributed.placement import GLOO_ENVIRONMENT, NCCL_ENVIRONMENT

OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Not CUBLAS_WORKSPACE_CONFIG: torch's deterministic mode needs it, and stays.
OF_A_TRAINING = (*OF_A_RANK, "DS_ACCELERATOR", "TOKENIZERS_PARALLELISM", *GLOO_ENVIRONMENT, *NCCL_ENVIRONMENT)


@contextmanager
def restored(names: Iterable[str]) -> Iterator[None]:
    """After the block these variables are what they were before it, or absent again."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
