"""A process group that refuses what NCCL refuses, at any world size, in one process, on a pretended GPU.

    with pretended_world(rank=3, size=64) as pretended:
        engine = Engine(model.to("cuda"), pretended.world, ...)
        with pretended.hot_path():
            train_step(...)
        pretended.ledger.sent                   # [Sent("all_reduce", 4096, group=0), ...]

Refused, with NCCL's own reason: tensors of the host, of a dtype or an operation that NCCL has not, that are not contiguous, whose
shapes do not fit each other; objects with tensors in them (they would go through the GPU's memory, pickled); and in the hot
path every collective of objects and every barrier, since the host waits in them.

One process: the other ranks are pretended to have given the same tensors and objects as this one, so that a sum is R times
its part and a gathered list R times this rank's item (`peers` may say other objects). Values are then those of no real
run; what is allowed, what is sent and in which order is. `carried`: real processes do the work over gloo, and compare what each
has given before every collective.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from unittest import mock

import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore

from unsee_dist.bench.pretended.cuda import accelerator
from unsee_dist.bench.pretended.device import DEVICE, PretendedGPU, tensors_of
from unsee_dist.bench.pretended.gpu import installed
from unsee_dist.bench.pretended.group import GLOO, NCCL, StrictGroup
from unsee_dist.bench.pretended.ledger import CollectiveLedger, Refused
from unsee_dist.distributed.deepspeed_import import import_deepspeed
from unsee_dist.distributed.world import World

deepspeed = import_deepspeed()
real_accelerator, comm, groups = (
    deepspeed.accelerator.real_accelerator,
    deepspeed.comm.comm,
    deepspeed.utils.groups,
)
WORLDS = count()
OBJECTS = ("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list")


@dataclass(frozen=True)
class Pretended:
    """world: with the pretended GPU as its device. ledger: of all its groups."""

    world: World
    gpu: PretendedGPU
    ledger: CollectiveLedger

    @contextmanager
    def hot_path(self) -> Iterator[None]:
        """A step: no objects, no barrier."""
        self.ledger.hot = True
        try:
            yield
        finally:
            self.ledger.hot = False


@contextmanager
def pretended_world(rank: int, size: int, carried: bool = False) -> Iterator[Pretended]:
    """This process, in whose group it is alone, is rank `rank` of `size` on a GPU, over NCCL. It changes the whole process: give
    it one of its own, with DS_ACCELERATOR=cpu.

    carried: the child is itself rank `rank` of `size` processes. The gloo group of before is gone in the block, and there again
    after it.
    """
    gpu, ledger = PretendedGPU(), CollectiveLedger()
    before = dist.distributed_c10d._get_default_store(), dist.get_rank(), dist.get_world_size()
    number = next(WORLDS)
    dist.destroy_process_group()
    store = PrefixStore(f"strict-{number}", before[0]) if carried else HashStore()
    for name, host in ((NCCL, False), (GLOO, True)):
        _register(name, lambda _store, r, s, _t, host=host: StrictGroup(r, s, gpu, ledger, host))
    environment = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        _forget_groups()
        stack.callback(real_accelerator.set_accelerator, real_accelerator.get_accelerator())
        real_accelerator.set_accelerator(accelerator(gpu, NCCL))
        dist.init_process_group(NCCL, store=store, rank=rank, world_size=size)
        stack.callback(dist.destroy_process_group)
        if carried:
            _group().carrier = dist.new_group(backend="gloo")
        for name in OBJECTS:
            stack.enter_context(mock.patch.object(dist, name, _watched(getattr(dist, name), name, ledger)))
        stack.enter_context(mock.patch.object(dist, "new_group", _new_group(dist.new_group, carried)))
        if not carried and rank > 0:  # deepspeed compares values with those of rank 0, which is not here
            check = "assert_ints_same_as_other_ranks"
            stack.enter_context(
                mock.patch.object(deepspeed.runtime.zero.partitioned_param_coordinator, check)
            )
        stack.enter_context(installed(gpu))
        yield Pretended(World(rank, size, 0, DEVICE), gpu, ledger)
    _forget_groups()
    store = PrefixStore(f"after-{number}", before[0])
    dist.init_process_group("gloo", store=store, rank=before[1], world_size=before[2])


def _group(given: dist.ProcessGroup | None = None) -> StrictGroup:
    """The group, or torch's default."""
    group = given or dist.group.WORLD
    assert isinstance(group, StrictGroup)
    return group


def _register(name: str, create: Callable[..., StrictGroup]) -> None:
    """Under a name that an earlier world of this process may have taken."""
    if hasattr(dist.Backend, name.upper()):
        delattr(dist.Backend, name.upper())
        dist.Backend.backend_list.remove(name)
    dist.Backend.register_backend(name, create, devices=["cpu", "cuda"])


def _forget_groups() -> None:
    """deepspeed keeps the groups of the first engine of a process."""
    comm.cdb = None
    for name, value in vars(groups).items():
        if name.isupper() and name.startswith("_") and value is not None:
            setattr(groups, name, type(value)() if isinstance(value, dict) else None)


def _new_group(create: Callable[..., Any], carried: bool) -> Callable[..., Any]:
    def new_group(*args: Any, backend: str | None = None, **kwargs: Any) -> Any:
        assert backend in (None, "gloo", NCCL), backend
        made = create(*args, backend=GLOO if backend == "gloo" else NCCL, **kwargs)
        if carried:
            made.carrier = create(*args, backend="gloo", **kwargs)
        return made

    return new_group


def _watched(collective: Callable[..., Any], name: str, ledger: CollectiveLedger) -> Callable[..., Any]:
    """A collective of objects: what has no place in it is refused, and the objects of pretended peers are put in."""

    def watched(*args: Any, group: Any = None, **kwargs: Any) -> Any:
        ledger.objects[name] += 1
        if ledger.is_hot():
            raise Refused(f"{name} in the hot path of a step: the host waits for the GPU and for all ranks")
        chosen = _group(group)
        given, into = (args[1], args[0]) if name == "all_gather_object" else (args[0], [*args[1:], None][0])
        if not chosen._host and (tensors := tensors_of(given)):
            raise Refused(
                f"{name} over NCCL of an object with tensors in it ({[tuple(t.shape) for t in tensors[:3]]}): they go pickled "
                "through the GPU's memory. Give it a gloo group."
            )
        collective(*args, group=group, **kwargs)
        if chosen.carrier is None and name in ("all_gather_object", "gather_object") and into is not None:
            for rank in range(chosen.size()):
                into[rank] = into[rank] if rank == chosen.rank() else ledger.peers(rank, into[rank])

    return watched
