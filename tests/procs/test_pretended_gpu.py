"""Two devices do not mix without a GPU either, and what the host would wait for is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from processes import run


def mistakes_on_one_device(_rank: int, _size: int) -> dict[str, str]:
    from unsee_dist.bench.pretended.device import PretendedGPU
    from unsee_dist.bench.pretended.gpu import installed

    reasons = {}
    with installed(PretendedGPU()) as gpu:
        host, there = torch.ones(3), torch.ones(3, device="cuda")
        wrong: dict[str, Callable[[], object]] = {
            "add": lambda: host + there,
            "cat": lambda: torch.cat([host, there]),
            "stack of 0-d": lambda: torch.stack([there.sum(), torch.tensor(1.0)]),
            "numpy": lambda: there.numpy(),
            "made on the host": lambda: there * torch.zeros(3),
            "adam's step on the host": lambda: torch._fused_adamw_(
                *([there], [there.clone()], [there.clone()], [there.clone()], [], [torch.tensor(1.0)]),
                lr=0.1,
                beta1=0.9,
                beta2=0.99,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            ),
            "in backward": lambda: _Wrong.apply(there.requires_grad_()).sum().backward(),
        }
        for label, operation in wrong.items():
            try:
                operation()
            except (RuntimeError, TypeError) as error:
                reasons[label] = str(error)
            else:
                reasons[label] = ""
        there = torch.ones(3, device="cuda")
        assert (there + torch.tensor(1.0)).device == torch.device("cuda", 0)
        assert there.new_zeros(2).is_cuda
        assert there.to("cpu").is_cpu
        gpu.counts.clear()
        there.sum().item(), there.tolist(), there.cpu(), bool(there[0]), there.nonzero()
        host.sum().item(), host.tolist()
        assert gpu.counts["host_reads"] == 5, gpu.waits
        torch.tensor([1.0], device="cuda"), host.to("cuda"), there.copy_(host)
        assert gpu.counts["uploads"] == 3, gpu.waits
        square, lengths = torch.eye(3, device="cuda"), torch.tensor([1, 2], device="cuda")
        waits: list[Callable[[], object]] = [
            lambda: there[there > 2],
            lambda: there.index_put_((there > 2,), there[:1]),
            lambda: torch.linalg.cholesky(square),
            lambda: torch.linalg.inv(square),
            lambda: torch.linalg.eigh(square),
            lambda: torch.segment_reduce(there, "sum", lengths=lengths),
            lambda: torch.allclose(there, there),
            lambda: torch.multinomial(there, 1),
        ]
        for number, operation in enumerate(waits):
            gpu.counts.clear()
            operation()
            assert gpu.counts["host_reads"] == 1, (number, gpu.waits)
        gpu.counts.clear()
        (
            torch.segment_reduce(there, "sum", lengths=lengths, unsafe=True),
            there[lengths],
            torch.linalg.cholesky_ex(square),
        )
        assert gpu.counts["host_reads"] == 0, gpu.waits
    assert there.is_cpu  # what it was all the time
    return reasons


class _Wrong(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(_ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * torch.ones(3)


def test_two_devices_do_not_mix_and_what_the_host_waits_for_is_counted() -> None:
    reasons = run(mistakes_on_one_device, 1)[0]
    assert [label for label, reason in reasons.items() if not reason] == []
    assert "at least two devices" in reasons["add"]
