"""What torch.distributed raises when a rank or the network between ranks is gone: nccl and the store have errors of their own, gloo
raises a plain RuntimeError, as torch does for a bug."""

from __future__ import annotations

import re

import torch.distributed as dist

# "[.../gloo/transport/tcp/pair.cc:539] Connection closed by peer ...", "Application timeout caused pair closure"
OF_GLOO = re.compile(r"\bgloo/|pair closure|[Cc]onnection (closed|reset|refused)|[Tt]imed out|[Bb]roken pipe")


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective has failed since a rank is gone or does not answer. False for a collective that was called in a
    wrong way, and for a RuntimeError from anywhere else."""
    if isinstance(error, dist.DistError):
        return True
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = "" if place is None else str(place.tb_frame.f_globals.get("__name__", ""))
    return module.startswith("torch.distributed") and OF_GLOO.search(str(error)) is not None
