"""A pretended GPU: CPU tensors that say they are on cuda:0, compute what a CPU computes, and are refused what a GPU refuses.

    with installed(PretendedGPU()) as gpu:
        x = torch.ones(3, device="cuda")        # x.device is cuda:0
        x + torch.ones(3)                       # RuntimeError: two devices
        x.numpy()                               # TypeError, as on CUDA
        x.sum().item()                          # counted: the host waits for the GPU

A storage is on the GPU when it was made there (`.to`, `device=`, or by an operation on another that is), and so are all its
views. Python's questions (`.device`, `.to`, `.cpu`, `device=`) are answered by patches of torch.Tensor and of torch, which hold
in every thread and in backward, where torch leaves function modes; a TorchDispatchMode sees every operation of the thread that
entered, also those of autograd, of optimizers and of deepspeed. Values are those of the CPU, so a run has its real losses.

What it cannot see: the order of work on several streams (there is one), time, and the kernels of a GPU themselves. An operation
counts as one launch, also where CUDA launches several kernels, and where a Triton kernel of this project takes the place of many.
What C++ makes without any tensor as its model (a scalar in torch.where) belongs to neither place until it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from unittest import mock

from unsee_dist.bench.pretended.cuda import cuda_answers
from unsee_dist.bench.pretended.device import PretendedGPU
from unsee_dist.bench.pretended.operations import Operations
from unsee_dist.bench.pretended.tensors import factories, questions


@contextmanager
def installed(gpu: PretendedGPU) -> Iterator[PretendedGPU]:
    """In this block the process has this GPU. One at a time."""
    with ExitStack() as stack:
        for owner, name, patch in chain(questions(gpu), factories(gpu), cuda_answers(gpu)):
            stack.enter_context(mock.patch.object(owner, name, patch))
        stack.enter_context(Operations(gpu))
        yield gpu
