"""What NCCL refuses is refused without a GPU; the rest is done as if all ranks had given the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from processes import run


def refusals(_rank: int, _size: int) -> dict[str, str]:
    from unsee_dist.bench.pretended.ledger import Refused
    from unsee_dist.bench.pretended.world import pretended_world

    reasons: dict[str, str] = {}
    with pretended_world(0, 8) as pretended:
        host, gpu = torch.ones(4, 4), torch.ones(4, 4, device="cuda")
        gloo = dist.new_group(backend="gloo")
        objects: list[Any] = [None] * 8

        def hot(collective: Callable[[], object]) -> Callable[[], None]:
            def call() -> None:
                with pretended.hot_path():
                    collective()

            return call

        # complex numbers are not here: torch itself sends them as pairs
        wrong: dict[str, Callable[[], object]] = {
            "host tensor": lambda: dist.all_reduce(host),
            "host output": lambda: dist.all_gather_into_tensor(torch.ones(32, 4), gpu),
            "not contiguous": lambda: dist.all_reduce(gpu.T[:2]),
            "int16": lambda: dist.all_reduce(gpu.to(torch.int16)),
            "bitwise": lambda: dist.all_reduce(gpu.int(), dist.ReduceOp.BAND),
            "other shapes": lambda: dist.all_gather([gpu] * 7 + [gpu[0]], gpu),
            "output too small": lambda: dist.all_gather_into_tensor(torch.ones(28, 4, device="cuda"), gpu),
            "other dtype": lambda: dist.all_gather_into_tensor(gpu.double().repeat(8, 1), gpu),
            "parts too small": lambda: dist.reduce_scatter_tensor(gpu, torch.ones(28, 4, device="cuda")),
            "object of host tensors": lambda: dist.all_gather_object(objects, [("weight", host)]),
            "object of GPU tensors": lambda: dist.gather_object({"weight": gpu}, objects, dst=0),
            "object in a step": hot(lambda: dist.all_gather_object(objects, 1)),
            "broadcast of objects in a step": hot(lambda: dist.broadcast_object_list([1], src=0)),
            "barrier in a step": hot(lambda: dist.barrier()),
            "GPU tensor over gloo": lambda: dist.all_reduce(gpu, group=gloo),
        }
        for label, collective in wrong.items():
            try:
                collective()
            except Refused as error:
                reasons[label] = str(error)
            else:
                reasons[label] = ""
    return reasons


def test_what_nccl_refuses_is_refused() -> None:
    reasons = run(refusals, 1)[0]
    assert [label for label, reason in reasons.items() if not reason] == []
    assert "No backend type associated with device type cpu" in reasons["host tensor"]
    assert "torch.int16" in reasons["int16"]
    assert "Give it a gloo group" in reasons["object of host tensors"]


def allowed(_rank: int, _size: int) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    from unsee_dist.bench.pretended.world import pretended_world

    results: dict[str, Any] = {}
    with pretended_world(3, 8) as pretended:
        x = torch.arange(4.0, device="cuda")
        gloo = dist.new_group(backend="gloo")
        total = x.clone()
        dist.all_reduce(total)
        results["sum"] = total.tolist()
        whole = torch.zeros(32, device="cuda")
        dist.all_gather_into_tensor(whole, x)
        results["gathered"] = whole.view(8, 4).tolist()
        part = torch.zeros(4, device="cuda")
        dist.reduce_scatter_tensor(part, torch.arange(32.0, device="cuda"))
        results["scattered"] = part.tolist()
        objects: list[Any] = [None] * 8
        dist.all_gather_object(objects, {"rank": 3})
        results["objects"] = objects
        on_host = torch.ones(2)
        dist.all_reduce(on_host, group=gloo)
        results["gloo"] = on_host.tolist()
        before = len(pretended.ledger.sent)
        dist.barrier()
        sent = [(each.kind, each.bytes, each.group) for each in pretended.ledger.sent]
        results["barrier"] = sent[before:]
    return results, sent[:3]


def test_the_rest_is_done_as_if_all_ranks_had_given_the_same() -> None:
    results, sent = run(allowed, 1)[0]
    assert results["sum"] == [0, 8, 16, 24]
    assert results["gathered"] == [[0, 1, 2, 3]] * 8
    assert results["scattered"] == [96, 104, 112, 120]
    assert results["objects"] == [{"rank": 3}] * 8
    assert results["gloo"] == [8, 8]
    assert results["barrier"] == [("barrier", 0, 0)]
    # what a rank sends of 16 bytes where eight ranks form a ring
    assert sent == [("all_reduce", 28, 0), ("all_gather", 112, 0), ("reduce_scatter", 112, 0)]
