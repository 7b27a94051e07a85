"""Rank 0 alone reads the encoder and its tokenizer, and every rank has them, bit for bit.

Each rank works in a folder of its own, where `encoder` holds other weights than on the other ranks: what a rank opens is seen, and
whose weights it has.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import run
from procs.opened import counting
from unit.model.encoders import ARCHITECTURES, make_encoder, sentences

from unsee_dist.config.sections import ModelSettings
from unsee_dist.data.corpus.tokens import digest as tokenizer_digest
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import pack
from unsee_dist.distributed.world import World
from unsee_dist.model.checked import load_checked, load_once
from unsee_dist.model.dropout import masks_of
from unsee_dist.model.encoder import encode, load_encoder
from unsee_dist.model.fresh import FreshSize, write_fresh
from unsee_dist.training.identity import describe_encoder

TEXT = ["A cat sat on a mat.", "The dog ate the cat.", "Mats are flat."]
SETTINGS = ModelSettings(encoder="./encoder", max_tokens=24)
WEIGHTS = "model.safetensors"


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """rank-0/encoder, rank-1/encoder, ...: one vocabulary, other weights."""
    for rank in range(3):
        folder = tmp_path / f"rank-{rank}" / "encoder"
        folder.mkdir(parents=True)
        write_fresh(folder, TEXT, FreshSize(60, 16, 1, 2, 24), seed=rank)
    return tmp_path


def world_of(rank: int, size: int) -> World:
    return World(rank, size, rank, torch.device("cpu"))


def loaded_once(rank: int, size: int, places: Path, alone: bool) -> dict[str, Any]:
    """What this rank has, and what it opened. alone: the control, every rank loads for itself."""
    os.chdir(places / f"rank-{rank}")
    torch.manual_seed(5)
    torch.rand(rank)  # the ranks' generators differ
    with counting(Path("encoder")) as opened:
        loaded = load_checked(SETTINGS) if alone else load_once(SETTINGS, world_of(rank, size))
    return {
        "opened": opened,
        "weights": describe_encoder(loaded.encoder),
        "tensors": {
            name: tensor.numpy(force=True).tobytes() for name, tensor in loaded.encoder.state_dict().items()
        },
        "trained": [parameter.requires_grad for parameter in loaded.encoder.parameters()],
        "tokenizer": tokenizer_digest(loaded.tokenizer),
        "ids": loaded.tokenizer(TEXT)["input_ids"],
        "random": torch.rand(4).tolist(),
        "config": loaded.encoder.config.to_dict(),
        "training": loaded.encoder.training,
        "masks": masks_of(loaded.encoder) is not None,
    }


@pytest.mark.parametrize("size", [2, 3])
def test_no_other_rank_opens_the_encoder_and_all_have_its_bits(places: Path, size: int) -> None:
    first, *others = run(loaded_once, size, places, False)
    assert first["opened"][WEIGHTS] > 0
    assert first["opened"]["tokenizer.json"] > 0
    assert [other.pop("opened") for other in others] == [Counter()] * (size - 1)
    first.pop("opened")
    assert all(other == first for other in others)
    (alone,) = run(loaded_once, 1, places, False)
    alone.pop("opened")
    assert first == alone, "one rank has the same"


def test_ranks_that_load_for_themselves_open_the_file_and_have_other_weights(places: Path) -> None:
    """The control: what is counted and compared can differ."""
    found = run(loaded_once, 2, places, True)
    assert all(each["opened"][WEIGHTS] > 0 for each in found)
    assert found[0]["tensors"] != found[1]["tensors"]
    assert found[0]["random"] != found[1]["random"]


def refused(rank: int, size: int, places: Path) -> str:
    os.chdir(places / f"rank-{rank}")
    try:
        load_once(SETTINGS, world_of(rank, size))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, "model.encoder = ./encoder could not be loaded: "),
        (shutil.rmtree, "model.encoder = ./encoder is not a folder"),
        (no_tokenizer, "model.encoder = ./encoder lacks a tokenizer"),
    ],
)
def test_what_rank_0_cannot_load_is_one_sentence_on_all_ranks(
    places: Path, damage: Any, sentence: str
) -> None:
    damage(places / "rank-0" / "encoder")
    first, *others = run(refused, 3, places)
    assert first.startswith(f"SharedUserError: {sentence}")
    assert others == [first] * 2


def test_the_other_ranks_need_no_encoder(places: Path) -> None:
    for rank in (1, 2):
        shutil.rmtree(places / f"rank-{rank}" / "encoder")
    assert run(refused, 3, places) == ["nothing"] * 3


def embeddings(rank: int, size: int, folder: Path) -> list[list[float]]:
    """Of every architecture, under dropout: its masks have arrived, too."""
    found = []
    from unsee_dist.distributed.one_module import module_from_rank_0
    from unsee_dist.model.dropout import register

    register()
    for name in ARCHITECTURES:
        made = load_encoder(str(folder / name), None) if rank == 0 else None
        encoder = module_from_rank_0(world_of(rank, size), made)
        batch = pack(sentences(6, 3), 24, 1, False, mask_keys(0, 1, np.arange(6)))
        found.append(encode(encoder, batch, "mean", 2).flatten().tolist())
    return found


def test_every_architecture_arrives_with_its_masks(tmp_path: Path) -> None:
    for name in ARCHITECTURES:
        make_encoder(name).save_pretrained(tmp_path / name)
    first, second = run(embeddings, 2, tmp_path)
    assert first == second
    assert len({round(each[0], 6) for each in first}) == len(ARCHITECTURES)


def tied(rank: int, size: int) -> tuple[bool, list[str], float]:
    from unsee_dist.distributed.one_module import module_from_rank_0

    made = None
    if rank == 0:
        made = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        made[1].weight = made[0].weight
        made[0].bias.requires_grad_(False)
        made[0].register_buffer("flags", torch.tensor([True, False]), persistent=False)
        made[1].register_buffer("low", torch.ones(2, 3, dtype=torch.bfloat16).T)
        made[1].register_buffer("none", torch.zeros(0))
    got = module_from_rank_0(world_of(rank, size), made)
    named = (*got.named_parameters(), *got.named_buffers())
    kinds = [f"{name} {tuple(t.shape)} {t.dtype} {t.requires_grad}" for name, t in named]
    return got[0].weight is got[1].weight, kinds, float(got(torch.eye(3)).sum())


def test_one_tensor_in_two_places_stays_one_and_types_stay() -> None:
    first, second = run(tied, 2)
    assert first == second
    assert first[0]
    assert {"0.bias (3,) torch.float32 False", "0.flags (2,) torch.bool False"} < set(first[1])
    assert "1.low (3, 2) torch.bfloat16 False" in first[1]
