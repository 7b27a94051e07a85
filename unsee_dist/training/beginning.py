"""How a run begins, for people: what trains on what, in one line."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from unsee_dist.config.sections import DataSettings, RunConfig
from unsee_dist.distributed.placement import device_name
from unsee_dist.distributed.world import World, print_on_rank_0
from unsee_dist.log import say_waiting
from unsee_dist.masking import masked
from unsee_dist.terminal import columns, first_that_fits


def print_first_line(config: RunConfig, world: World, sentences: int) -> None:
    """Print the first line of a run, and what it waits for then. sentences: of its corpus. Collective."""
    devices = devices_of_all(world)
    print_on_rank_0(world, first_line(config, devices, sentences, columns(sys.stderr)))
    print_waiting(world, f"{config.run.name}: making the engine, reading what is in {config.run.dir}")


def print_waiting(world: World, what: str) -> None:
    """Say on rank 0 what all ranks wait for."""
    if world.rank == 0:
        say_waiting(what, alone=world.size == 1)


def corpus_name(data: DataSettings) -> str:
    """The corpus as the settings name it."""
    return masked(data.mix or data.shards)


def devices_of_all(world: World) -> list[tuple[str, str]]:
    """(host, device) of every rank, in rank order. Collective."""
    own, everyone = (socket.gethostname(), device_name(world.device)), [("", "")] * world.size
    if world.size == 1:
        return [own]
    dist.all_gather_object(everyone, own)
    return everyone


def first_line(
    config: RunConfig, devices: Sequence[tuple[str, str]], sentences: int, width: int | None = None
) -> str:
    """What trains on what, in one line: ranks, hosts, devices, precision, stage, corpus, batch. devices: (host, device) of
    every rank. width: of the terminal, None elsewhere."""
    ranks, hosts = len(devices), sorted({host for host, _ in devices})
    kinds = Counter(device for _, device in devices)
    named = " + ".join(f"{count} x {kind}" if ranks > 1 else kind for kind, count in kinds.items())
    corpus, each = corpus_name(config.data), config.train.batch / ranks
    layout = f"{_counted(ranks, 'rank')} on {_counted(len(hosts), 'host')}"
    batch, precise = (
        f"batch {config.train.batch}",
        f"{config.parallel.precision} ZeRO-{config.parallel.stage(ranks)}",
    )
    start = f"{layout} | {named} {precise}"
    many, last = f"{sentences:,} sentences", Path(corpus).name
    where = f" of {hosts[0]}" if len(hosts) == 1 else f" from {hosts[0]} on"
    return first_that_fits(
        (
            f"{layout}{where} | {named} | {precise} | {corpus}: {many} | {batch}, {each:g} a rank",
            f"{start} | {corpus}: {many} | {batch}, {each:g} a rank",
            f"{start} | {corpus}: {many} | {batch}",
            f"{start} | {last}: {many} | {batch}",
            f"{layout} | {' + '.join(kinds)} {precise} | {sentences:,} of {last} | {batch}",
        ),
        width,
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
