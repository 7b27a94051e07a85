"""Memory that runs out: is it, and for what? A smaller micro-batch helps only activations."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

import torch

from unsee_dist.errors import UserError

# Code that asks for gradients, masters and moments, never for activations.
STATE = ("deepspeed.", "torch.optim.")


def is_out_of_memory(error: BaseException) -> bool:
    """Of a GPU or a CPU; torch has no type of its own for a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def was_for_state(error: BaseException) -> bool:
    """Was the memory asked for by what keeps weights, gradients and the optimizer? Seen by who asked last."""
    last = [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)][-1:]
    return bool(last) and last[0].startswith(STATE)


def no_room_for_state(error: BaseException) -> UserError:
    """The sentence where weights, gradients and the optimizer's state do not fit: no micro-batch is small enough."""
    return UserError(
        f"model.encoder with its gradients and the optimizer's state does not fit into the memory of "
        f"{socket.gethostname()}: {str(error).splitlines()[0]} A smaller train.micro_batch does not change that. Use "
        "parallel.zero=3 on more ranks, a smaller projector.width or a smaller encoder."
    )


@contextmanager
def memory_for_state() -> Iterator[None]:
    """Turn memory that runs out while an engine is made, or after a backward, into a UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise no_room_for_state(error) from error
