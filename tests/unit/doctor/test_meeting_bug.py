"""A bug is no closed port and no broken network; a rank that is gone ends the others with the code of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from unsee_dist.distributed.world import World
from unsee_dist.doctor import ranks
from unsee_dist.errors import ExitCode

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:539] Connection closed by peer [127.0.0.1]:1"
WRONG_CALL = "ProcessGroupGloo::allgather: invalid output tensor list at index 0 (expected length 2, got 1)"


class Ended(BaseException):
    """In place of the end of the process."""


def test_what_nobody_foresaw_while_ranks_meet_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(**_: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(ranks, "join_world", planted)
    with pytest.raises(KeyError, match="planted"):
        ranks._meet()


def reduced(error: RuntimeError, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks look together; the reduction of this one raises in a line of `module`."""

    def end(code: int) -> None:
        raise Ended(code)

    raises = "def raises(world):\n    raise error\n"
    names: dict[str, Any] = {"__name__": module, "error": error}
    exec(raises, names)
    monkeypatch.setattr(ranks, "_all_reduce", names["raises"])
    monkeypatch.setattr("os._exit", end)
    ranks._together(World(0, 2, 0, torch.device("cpu")), [], Path())


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL communicator was aborted"),
        dist.DistNetworkError("closed"),
        dist.DistStoreError("wait timeout"),
        RuntimeError(GLOO),
        RuntimeError("Application timeout caused pair closure"),
    ],
)
def test_a_rank_that_is_gone_is_a_finding_and_the_code_of_that(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Ended) as ended:
        reduced(error, "torch.distributed.distributed_c10d", monkeypatch)
    assert ended.value.args == (ExitCode.RANK_LOST,)
    said = capsys.readouterr().err
    assert str(error).split()[0][:30] in said
    assert "GLOO_SOCKET_IFNAME" in said


def test_a_gpu_without_memory_is_a_finding_and_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Ended) as ended:
        reduced(torch.OutOfMemoryError("CUDA out of memory"), "torch.cuda", monkeypatch)
    assert ended.value.args == (ExitCode.MISTAKE,)
    assert "nvidia-smi" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "module"),
    [
        (WRONG_CALL, "torch.distributed.distributed_c10d"),
        (GLOO, "unsee_dist.doctor.ranks"),
        ("The size of tensor a (3) must match", "unsee_dist.doctor.ranks"),
        ("dictionary changed size during iteration", "torch.nn"),
    ],
)
def test_a_bug_while_ranks_reduce_keeps_its_traceback(
    text: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError) as met:
        reduced(RuntimeError(text), module, monkeypatch)
    assert str(met.value) == text
