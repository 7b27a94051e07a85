"""What only a GPU shows: sums in any order, memory that grows, memory that runs out, streams, masks on two devices."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from oracle import DEVICE, Running
from processes import RankFailed, run
from torch import Tensor

from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import pack
from unsee_dist.data.stream.stream import Batch
from unsee_dist.distributed import engine as engine_module
from unsee_dist.distributed.engine import Engine
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.distributed.replica import Replica
from unsee_dist.distributed.world import World
from unsee_dist.errors import UserError
from unsee_dist.model import masks
from unsee_dist.model.dropout import install, register
from unsee_dist.model.encoder import pool
from unsee_dist.model.projector import Projector
from unsee_dist.model.target import Target
from unsee_dist.model.unsee import Unsee
from unsee_dist.objectives import OBJECTIVES
from unsee_dist.training.step import train_step

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(540)]
WIDTH, VOCABULARY, TOKENS = 256, 500, 64


def large(objective: str, stage: int, precision: Any) -> Running:
    """A BERT of 4 layers and width 256: large enough for the kernels that add in any order."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=TOKENS,
    )
    config._attn_implementation = register()
    online = BertModel(config, add_pooling_layer=False).train()
    install(online)
    reduction = Reduction()
    module = Unsee(
        online,
        Projector(WIDTH, 1, 4, reduction),
        OBJECTIVES[objective](WIDTH, reduction),
        pooling="mean",
        ema=True,
        both=False,
    ).to(DEVICE)
    engine = Engine(module, World(0, 1, 0, DEVICE), stage, precision, weight_decay=0.01, clip=1.0)
    frozen = engine.module.frozen()
    shards = [shard for shard in engine.shards if shard.name in frozen]
    return Running(engine, Target(shards, Replica(shards, frozen, stage, 1, engine.writes)))


def large_batch(step: int, sentences: int = 256, shared: bool = True, cut: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(step)
    lengths = torch.randint(5, TOKENS, (sentences,), generator=generator).tolist()
    tokens = [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
    ids = np.arange(sentences)
    keys, size = mask_keys(0, step, ids), cut or sentences
    micro_batches = tuple(
        pack(tokens[at : at + size], TOKENS, 0, shared, keys[at : at + size])
        for at in range(0, sentences, size)
    )
    return Batch(step, tuple(ids.tolist()), micro_batches, sum(lengths)).to(DEVICE)


def ends(objective: str, stage: int, precision: Any, cut: int | None) -> dict[str, Tensor]:
    ours = large(objective, stage, precision)
    for step in range(1, 4):
        train_step(ours.engine, ours.target, large_batch(step, cut=cut), 1e-3, 0.99)
    return ours.whole("master")


def repeats(_rank: int, _size: int, ordered: bool) -> None:
    if not ordered:  # the known wrong way: torch's fastest kernels
        engine_module.sums_in_order = nullcontext  # type: ignore[assignment]
    for objective in ("vicreg", "corinfomax", "barlow_twins"):
        for precision in ("fp32", "bf16"):
            for stage, cut in ((0, None), (1, 64), (3, None)):
                first, second = (ends(objective, stage, precision, cut) for _ in range(2))
                for name, values in first.items():
                    assert torch.equal(values, second[name]), (objective, precision, stage, cut, name)


def test_the_same_run_twice_is_the_same_bit_for_bit(device: str) -> None:
    run(repeats, 1, True, timeout_s=500, device=device)


@pytest.mark.usefixtures("cuda")
def test_without_an_order_of_sums_two_runs_differ(device: str) -> None:
    with pytest.raises(RankFailed, match=r"word_embeddings"):
        run(repeats, 1, False, timeout_s=500, device=device)


def added_in_any_order(_rank: int, _size: int) -> bool:
    """The known wrong way: index_add of many rows into few sums, ten times. Whether all are equal."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200_000, 64, generator=generator).to(DEVICE)
    slots = torch.randint(0, 50, (200_000,), generator=generator).to(DEVICE)
    sums = [torch.zeros(50, 64, device=DEVICE).index_add(0, slots, rows) for _ in range(10)]
    means = [pool(rows[None], slots[None], 50, "mean") for _ in range(10)]
    assert all(torch.equal(means[0], each) for each in means)
    return all(torch.equal(sums[0], each) for each in sums)


@pytest.mark.usefixtures("cuda")
def test_pooling_adds_in_order_where_index_add_does_not(device: str) -> None:
    assert run(added_in_any_order, 1, device=device) == [False]


def masks_of_two_devices(_rank: int, _size: int) -> None:
    keys = torch.from_numpy(mask_keys(1, 2, np.arange(700))).view(7, 100)
    for here, there in (
        (masks.hidden_lanes(keys, 3, 250), masks.hidden_lanes(keys.to(DEVICE), 3, 250)),
        (masks.attention_lanes(keys, 5, 4, 61), masks.attention_lanes(keys.to(DEVICE), 5, 4, 61)),
    ):
        assert torch.equal(here, there.cpu())
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            ours = masks.multiplier(here.clone(), 0.1, dtype)
            assert torch.equal(ours, masks.multiplier(there.clone(), 0.1, dtype).cpu())


def kernel_and_definition(_rank: int, _size: int) -> None:
    """The Triton kernel against masks.py, on the card: hidden states and attention, rows shared and not, with gradient."""
    from unsee_dist.model import mask_kernels

    keys = torch.from_numpy(mask_keys(1, 2, np.arange(7 * 64))).view(7, 64).to(DEVICE)
    places = torch.cat([torch.arange(30), torch.arange(20), torch.arange(14)]).repeat(7, 1).to(DEVICE)
    heads = masks.attention_lanes(keys, 3, 4, 64)
    shared = heads.gather(-1, places[:, None, None, :].expand(-1, 4, 64, -1))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for shape, lanes, positions in (
            ((7, 64, 250), masks.hidden_lanes(keys, 3, 250), None),
            ((7, 64, 768), masks.hidden_lanes(keys, 3, 768), places),
            ((7, 4, 64, 64), heads, None),
            ((7, 4, 64, 64), shared, places),
        ):
            x = torch.randn(shape, device=DEVICE, dtype=dtype, requires_grad=True)
            wanted = x * masks.multiplier(lanes.clone(), 0.1, dtype)
            found = mask_kernels.dropped(x, keys, positions, 0.1, 3)
            grad = torch.randn_like(found)
            assert torch.equal(found, wanted), (dtype, shape)
            both = [torch.autograd.grad(each, x, grad)[0] for each in (found, wanted)]
            assert torch.equal(*both), (dtype, shape)


@pytest.mark.usefixtures("cuda")
def test_the_kernel_of_the_masks_is_their_definition(device: str) -> None:
    run(kernel_and_definition, 1, device=device)


def test_a_gpu_and_a_cpu_draw_the_same_masks(device: str) -> None:
    run(masks_of_two_devices, 1, device=device)


def memory_over_steps(_rank: int, _size: int) -> tuple[list[int], list[int]]:
    """Bytes allocated and reserved after steps 20, 140, ... 500."""
    ours = large("vicreg", 1, "bf16")
    allocated, reserved = [], []
    for step in range(1, 501):
        train_step(ours.engine, ours.target, large_batch(step % 7, 64), 1e-4, 0.99)
        if step >= 20 and step % 120 == 20:
            allocated.append(torch.cuda.memory_allocated())
            reserved.append(torch.cuda.memory_reserved())
    return allocated, reserved


@pytest.mark.usefixtures("cuda")
def test_memory_stays_flat_over_500_steps(device: str) -> None:
    allocated, reserved = run(memory_over_steps, 1, timeout_s=500, device=device)[0]
    assert len(allocated) == 5
    assert max(allocated[1:]) <= allocated[0] + 2**20, allocated
    assert max(reserved[1:]) <= reserved[0] + 2**26, reserved


def memory_runs_out(_rank: int, _size: int) -> str:
    """A batch that needs more than this process may have; and a smaller one after it."""
    ours = large("vicreg", 1, "bf16")
    assert train_step(ours.engine, ours.target, large_batch(1, 8), 1e-4, 0.99).applied
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    message = ""
    try:
        train_step(ours.engine, ours.target, large_batch(2, 4096), 1e-4, 0.99)
    except UserError as error:
        message = str(error)
    ours.engine.discard()
    torch.cuda.empty_cache()
    return message


@pytest.mark.usefixtures("cuda")
def test_memory_that_runs_out_says_which_micro_batch_to_try(device: str) -> None:
    message = run(memory_runs_out, 1, timeout_s=300, device=device)[0]
    assert "train.micro_batch = 4096 does not fit into the memory" in message
    assert "at step 2" in message
    assert "Write train.micro_batch=2048: a step then needs less at once." in message


def embedded_after_a_late_write(_rank: int, _size: int) -> bool:
    """Whether a forward of stage 3 right after a write, which the GPU has not made yet, uses what is written."""
    ours = large("vicreg", 3, "bf16")
    micro_batches = large_batch(1, 16).micro_batches
    with torch.no_grad():
        ours.engine.train(False)
        for _ in range(3):  # deepspeed has recorded the order of the layers, and gathers ahead
            ours.engine(micro_batches, embed=True)
        torch.cuda.synchronize()
        torch.cuda._sleep(500_000_000)  # a quarter of a second, in which the host runs ahead
        for shard in ours.engine.shards:
            shard.master.mul_(1.5)
        ours.engine.refresh()
        at_once = ours.engine(micro_batches, embed=True).cpu()
        torch.cuda.synchronize()
        later = ours.engine(micro_batches, embed=True).cpu()
    return torch.equal(at_once, later)


@pytest.mark.usefixtures("cuda")
def test_a_late_write_of_stage_3_is_gathered(device: str) -> None:
    """With one rank it is also without `writes`, whose order tests/procs/test_weight_writes.py shows."""
    assert run(embedded_after_a_late_write, 1, timeout_s=300, device=device) == [True]
