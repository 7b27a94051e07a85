"""Stage 3: weights that are written on one stream of a GPU and gathered on another.

deepspeed gathers the parts of a weight on a stream of its own, ahead of the layer that needs it. That stream waits for
nobody: a gather may read a part before the update of the last step, or of the EMA target, has been written to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import torch

from unsee_dist.distributed.deepspeed_types import Optimizer, PartitionedOptimizer


class DeviceStream(Protocol):
    """What is used of torch.cuda.Stream."""

    def wait_stream(self, stream: DeviceStream) -> None: ...


def _current_stream() -> DeviceStream:
    return cast("DeviceStream", torch.accelerator.current_stream())


@dataclass(frozen=True)
class WeightWrites:
    """gathers: deepspeed's stream of gathers; None where all runs in order (stages 0 to 2, a CPU)."""

    gathers: DeviceStream | None = None
    current: Callable[[], DeviceStream] = _current_stream

    @classmethod
    def of(cls, optimizer: Optimizer, stage: int) -> WeightWrites:
        if stage < 3:
            return cls()
        offload = cast("PartitionedOptimizer", optimizer).parameter_offload
        return cls(getattr(offload, "_DeepSpeedZeRoOffload__allgather_stream"))  # noqa: B009  (a private name)

    @contextmanager
    def ordered(self) -> Iterator[None]:
        """Write weights in this block: after all gathers before it have read them, before any gather after it does."""
        if self.gathers is not None:
            self.current().wait_stream(self.gathers)
        yield
        if self.gathers is not None:
            self.gathers.wait_stream(self.current())
