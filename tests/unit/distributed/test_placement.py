"""Every rank gets a GPU of its own or all ranks get the sentence why not; GPUs are pretended."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from unsee_dist.distributed import placement
from unsee_dist.distributed.placement import Place, agree, backend_of, choose_device, fault_of, place_rank
from unsee_dist.errors import UserError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Pretend that this process sees GPUs of these UUIDs; tells which became current."""
    current: list[int] = []

    def pretend(*uuids: str, local_rank: int | None = None) -> list[int]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(uuids))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuids[device.index])
        )
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if local_rank is not None:
            monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        return current

    monkeypatch.delenv(placement.SHARE_GPU, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")  # choose_device sets it: undone after the test
    return pretend


@pytest.mark.parametrize(
    ("seen", "local_rank", "rank", "index"),
    [
        (8, 3, 11, 3),
        (1, 0, 0, 0),
        (1, 3, 3, 0),  # srun --gpus-per-task=1: each task sees one GPU, its own
        (4, None, 6, 2),  # a launcher without LOCAL_RANK
        (1, None, 6, 0),
    ],
)
def test_the_gpu_of_a_rank(gpus, seen: int, local_rank: int | None, rank: int, index: int) -> None:
    current = gpus(*map(str, range(seen)), local_rank=local_rank)
    assert choose_device(rank) == torch.device("cuda", index)
    assert current == [index]
    assert placement.os.environ["LOCAL_RANK"] == str(index)  # deepspeed's choice is the same
    assert choose_device(rank) == torch.device("cuda", index)  # joined twice


def test_a_host_with_fewer_gpus_than_ranks(gpus, monkeypatch) -> None:
    gpus("a", "b", local_rank=2)
    with pytest.raises(UserError, match=r"LOCAL_RANK = 2 has no GPU: .* shows 2"):
        choose_device(2)
    monkeypatch.setenv(placement.SHARE_GPU, "1")
    assert choose_device(2) == torch.device("cuda", 0)


def test_without_a_gpu(gpus) -> None:
    gpus(local_rank=3)
    assert choose_device(3) == torch.device("cpu")
    assert placement.os.environ["LOCAL_RANK"] == "3"
    assert backend_of(torch.device("cpu")) == "gloo"


def test_shared_gpus_talk_over_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(placement.SHARE_GPU, raising=False)
    assert backend_of(torch.device("cuda", 0)) == "nccl"
    monkeypatch.setenv(placement.SHARE_GPU, "1")
    assert backend_of(torch.device("cuda", 0)) == "gloo"


def place(rank: int, gpu: str | None, backend: str = "nccl", problem: str | None = None) -> Place:
    return Place(rank, f"n{rank // 2}", backend, gpu, problem)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([place(0, "a"), place(1, "b"), place(2, "c")], None),
        ([place(0, None, "gloo"), place(1, None, "gloo")], None),
        ([place(0, "a", "gloo"), place(1, "a", "gloo")], None),  # UNSEE_SHARE_GPU=1
        ([place(0, "a"), place(1, "b"), place(2, "b")], "rank 1 on n0 and rank 2 on n1 have the same GPU"),
        ([place(0, "a"), place(1, None, "gloo")], "rank 1 on n0 sees no GPU, rank 0 on n0 does"),
        ([place(0, "a"), place(1, "b", "gloo")], "UNSEE_SHARE_GPU = 1 for rank 1 on n0, but not for rank 0"),
        (
            [place(0, "a"), place(1, None, "none", "LOCAL_RANK = 9 has no GPU")],
            "rank 1 on n0: LOCAL_RANK = 9",
        ),
    ],
)
def test_what_places_do_not_fit(places: list[Place], words: str | None) -> None:
    fault = fault_of(places)
    assert (fault is None) if words is None else (fault is not None and words in fault), fault


@pytest.mark.parametrize(
    ("uuids", "fault"), [(("a", "b", "c"), ""), (("a", "b", "a"), "rank 0 on n0 and rank 2 on n1")]
)
def test_all_ranks_are_told_of_one_fault(uuids: tuple[str, ...], fault: str) -> None:
    store, faults = HashStore(), [""] * len(uuids)

    def join(rank: int) -> None:
        try:
            agree(store, place(rank, uuids[rank]), len(uuids))
        except UserError as error:
            faults[rank] = str(error)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(len(uuids))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(faults)) == 1
    assert fault in faults[0]
    assert bool(faults[0]) == bool(fault)


def test_a_rank_without_a_gpu_tells_the_others(gpus) -> None:
    gpus("a", "b", local_rank=7)
    with pytest.raises(UserError, match=r"rank 0 on .*: LOCAL_RANK = 7 has no GPU"):
        place_rank(HashStore(), 0, 1)
