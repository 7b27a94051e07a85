"""Which rank blocks the others, out of what each rank says of itself. Pure.

    the others wait for the rank that has issued the fewest collectives: they have issued the next one, and it has not
    in a tie, for the one whose background thread has, where ranks wait for it (the saving of a checkpoint, say)
    in a tie, for the one that is outside torch.distributed, where frames tell (gloo; under NCCL a collective returns at
    once, and the rank waits in the next copy to the host)
    in a tie of all ranks nobody blocks: what they all use hangs, the network between them or a device

Durations are each rank's own, from its own monotonic clock; clocks of two hosts are never compared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unsee_dist.files.process import Process, has_ended

HOSTS_SHOWN = 8


@dataclass(frozen=True)
class RankStatus:
    """What a rank reports of itself. idle_s: seconds since it last entered a phase or issued a collective.

    collectives: issued by training. awaited: issued by the background threads that the main thread waits for, -1 while it
    waits for none. outside: a thread that trains is in no collective; None where that cannot be seen. exit_reason: set by
    a rank that exits.
    """

    rank: int
    host: str
    step: int
    phase: str
    idle_s: float
    collectives: int
    awaited: int
    outside: bool | None
    process: Process
    beat: int = 0
    exit_reason: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> RankStatus:
        """What `dataclasses.asdict` made, through JSON."""
        return cls(**{**values, "process": Process(*values["process"])})  # type: ignore[arg-type, misc]  # our own JSON

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} (step {self.step}, {self.phase})"


@dataclass(frozen=True)
class Received:
    """The last status of another rank. `at`: our own monotonic clock when it arrived."""

    status: RankStatus
    at: float

    def age(self) -> float:
        return time.monotonic() - self.at

    def idle_s(self) -> float:
        """Seconds for which nothing is known to have moved: those of a rank that exited go on."""
        return self.status.idle_s + self.age()


def without_progress(statuses: Mapping[int, RankStatus], idle_s: float, timeout_s: float) -> str:
    """The sentence when every rank reports and none has made progress for idle_s seconds."""
    own_limit = f"for {idle_s:.0f} s (guard.timeout_s = {timeout_s:g})"
    blocking = blocking_ranks(list(statuses.values()))
    if len(blocking) == len(statuses) > 1:
        return _nobody_blocks(blocking, own_limit)
    others = [str(status) for rank, status in sorted(statuses.items()) if status not in blocking]
    names, verb, them = (
        "; ".join(map(str, blocking)),
        "has" if len(blocking) == 1 else "have",
        "it" if len(blocking) == 1 else "them",
    )
    return f"{names} {verb} made no progress {own_limit}. Waiting for {them}: {'; '.join(others) or 'no other rank'}."


def blocking_ranks(statuses: Sequence[RankStatus]) -> list[RankStatus]:
    """Those that are furthest behind, in rank order; all of them when that is not known."""
    behind = min(map(_place, statuses))
    return sorted((status for status in statuses if _place(status) == behind), key=lambda status: status.rank)


def _place(status: RankStatus) -> tuple[int, int, bool, int]:
    """Smaller for a rank that is further behind."""
    return status.collectives, status.awaited, not status.outside, status.step


def _nobody_blocks(statuses: Sequence[RankStatus], own_limit: str) -> str:
    hosts = sorted({status.host for status in statuses})
    shown = ", ".join(hosts[:HOSTS_SHOWN]) + (" ..." if len(hosts) > HOSTS_SHOWN else "")
    where = "; ".join(map(str, statuses))
    if all(status.outside for status in statuses):
        return (
            f"No rank has made progress {own_limit}, and none waits for another in a collective: what all of them use "
            f"hangs, such as a disk, or each is in an endless loop. {where}."
        )
    return (
        f"All ranks have issued {statuses[0].collectives} collectives, wait in the same one, and have made no progress "
        f"{own_limit}: the network between them ({shown}) or a device hangs. {where}."
    )


def lost_ranks(received: Sequence[Received], silent_s: float, missed_s: float) -> list[Received]:
    """Ranks that report no more and have not said why: silent for silent_s seconds; for missed_s when their process is
    seen to have ended, which only a rank on the same machine can see."""
    return [
        one
        for one in received
        if one.status.exit_reason is None
        and (one.age() > silent_s or (one.age() > missed_s and has_ended(one.status.process)))
    ]


def describe_lost(lost: Sequence[Received], waiting: Sequence[Received]) -> str:
    names = "; ".join(
        f"{one.status} has sent no status for {one.age():.0f} s"
        if one.status.exit_reason is None
        else f"{one.status}: {one.status.exit_reason}"
        for one in lost
    )
    silent = [one for one in lost if one.status.exit_reason is None]
    why = ""
    if silent:
        ended = all(has_ended(one.status.process) for one in silent)
        why = " Its process has ended." if ended else " It has died, is stopped, or its network is down."
    others = f" Waiting for it: {'; '.join(str(one.status) for one in waiting)}." if waiting else ""
    return f"{names}.{why}{others}"
