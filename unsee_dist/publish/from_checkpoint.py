"""The online encoder of a checkpoint as an exported folder."""

from __future__ import annotations

from pathlib import Path

import torch

from unsee_dist.config import CONFIG, recorded
from unsee_dist.errors import UserError
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.publish.sentence_transformers import write_encoder
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.state import CheckpointReader, StateSlice


def write_online(checkpoint: Path, run: Path, folder: Path) -> None:
    """Write the online encoder of `checkpoint` of `run` into `folder`. UserError: the checkpoint is damaged."""
    if not (run / CONFIG).is_file():
        raise UserError(
            f"{checkpoint} is a checkpoint without its run: {run / CONFIG} is missing. Give a checkpoint in its run's folder."
        )
    model = recorded(run).model
    try:
        manifest = directory.verify(checkpoint)
    except UserError as error:
        raise UserError(f"{error}: this checkpoint is damaged. Give another one.") from error
    stored, encoder = CheckpointReader(checkpoint, manifest), load_encoder(model.encoder, None)
    state = {name: tensor.detach() for name, tensor in encoder.state_dict().items()}
    trained = dict(encoder.named_parameters())
    flat = {name: torch.empty(parameter.numel()) for name, parameter in trained.items()}
    stored.fill([StateSlice("master", f"online.{name}", 0, values) for name, values in flat.items()])
    state |= {name: values.view(trained[name].shape) for name, values in flat.items()}
    tokenizer = load_tokenizer(model.encoder)
    write_encoder(folder, state, encoder.config, tokenizer, model.pooling, model.max_tokens)
