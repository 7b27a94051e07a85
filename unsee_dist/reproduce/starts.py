"""The encoders that an experiment begins with: the user's, the same one with random weights, and others that are given by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import atomic_folder
from unsee_dist.model.encoder import load_encoder, load_tokenizer, quiet_transformers

GIVEN, RANDOM = "given", "random"
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
SEED = 0  # of the random weights, under each seed of the runs


def parse_starts(texts: Sequence[str]) -> dict[str, str]:
    """{name: folder} of each NAME=FOLDER. UserError: a text is none, or a name is there twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or not set(name) <= LETTERS:
            raise UserError(
                f"--start {text} is not NAME=FOLDER. Write --start NAME=FOLDER, the name in letters, digits, dots and hyphens."
            )
        if name in found or name in (GIVEN, RANDOM):
            raise UserError(f"--start {text}: there is a start {name} already. Write another name.")
        found[name] = folder
    return found


def all_starts(others: Mapping[str, str], out: Path) -> dict[str, str]:
    """Folders by name, the random one first; "" is the user's own encoder."""
    return {RANDOM: str(out / RANDOM), GIVEN: "", **others}


def write_random(folder: Path, encoder: str) -> None:
    """The encoder with weights as before any training, and its tokenizer; nothing where it is there already."""
    from transformers import AutoModel

    if (folder / "config.json").is_file():
        return
    config, tokenizer = load_encoder(encoder, None).config, load_tokenizer(encoder)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(SEED)
        fresh = AutoModel.from_config(config)
    with writing(folder), quiet_transformers(), atomic_folder(folder) as new:
        fresh.save_pretrained(new)
        tokenizer.save_pretrained(new)
