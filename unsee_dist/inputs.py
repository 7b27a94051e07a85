"""What a run reads, from its configuration: corpus, tokenizer, encoder and evaluation; the model around the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from unsee_dist.config import RunConfig
from unsee_dist.config.sections import LEAST_BATCH
from unsee_dist.data import Mix, Shards, Stream, open_corpus
from unsee_dist.data.corpus.tokenise_together import tokenise_first
from unsee_dist.distributed.reduce import Reduction
from unsee_dist.distributed.shared_errors import share_errors
from unsee_dist.distributed.world import World, gather_rows, print_on_rank_0
from unsee_dist.errors import UserError
from unsee_dist.evaluation.development import PROBE, Development
from unsee_dist.evaluation.question_files import load_question_sets
from unsee_dist.evaluation.sts_files import load_sets
from unsee_dist.model.checked import Loaded
from unsee_dist.model.compiled import check_compile
from unsee_dist.model.encoder import layout_warning, packs_exactly
from unsee_dist.model.projector import make_projector
from unsee_dist.model.unsee import Unsee
from unsee_dist.objectives import OBJECTIVES
from unsee_dist.training.identity import identity_of
from unsee_dist.training.start import StartRequest, refuse_other_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Inputs(NamedTuple):
    """What a rank opens without a collective."""

    shards: Shards | Mix
    tokenizer: PreTrainedTokenizerFast
    model: Unsee
    share_rows: bool
    stream: Stream
    development: Development


def open_inputs(config: RunConfig, world: World, loaded: Loaded) -> Inputs:
    """Corpus and evaluation of a run, and its model. Raises UserError, a mistake of the user, on this rank alone.

    Rank 0 looks at the sizes of all shards, for all: 38,000 files of 10^10 sentences, times the ranks, are a load on a file
    system. A shard that another machine does not have is named when it is read.
    """
    shards = open_corpus(config.data, check=world.rank == 0)
    tokenizer, model = loaded.tokenizer, assemble(loaded.encoder, config, world)
    if warning := layout_warning(config.model.encoder, model.online):
        print_on_rank_0(world, warning)
    if given := weight_of_auto(config, loaded.encoder.config.hidden_size):
        print_on_rank_0(world, given)
    share_rows = shares_rows(config, model)
    if config.data.pack == "auto" and not share_rows:
        print_on_rank_0(
            world,
            f"{config.model.encoder} cannot separate sentences that share a row: each gets a row of its own",
        )
    if config.parallel.compile:
        check_compile(config.model.encoder, model.online, share_rows)
    resolved = config.data.model_copy(update={"pack": share_rows})
    stream = Stream(shards, tokenizer, config.model_copy(update={"data": resolved}), world.rank, world.size)
    return Inputs(shards, tokenizer, model, share_rows, stream, build_development(config, stream, world))


def tokenise_ahead(config: RunConfig, world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokenise the whole corpus, where `data.tokenise` asks for it. Collective."""
    if not config.data.tokenise:
        return
    refuse_other_settings(world, config)
    with share_errors(world):
        corpus = open_corpus(config.data, check=world.rank == 0)
    tokenise_first(corpus, tokenizer, config.read_tokens, config.data.workers or 1, world)


def start_request(config: RunConfig, inputs: Inputs) -> StartRequest:
    """What a start was given, with the digests of what it read. Before an engine changes the weights."""
    development = inputs.development
    identity = identity_of(
        config,
        inputs.model.online,
        inputs.tokenizer,
        inputs.shards.fingerprint,
        development.sts,
        development.retrieval,
    )
    return StartRequest(config, identity, inputs.shards.sentences)


def assemble(online: PreTrainedModel, config: RunConfig, world: World) -> Unsee:
    """Online encoder, projector, target and objective on the device, in fp32; new weights are the same on every rank."""
    width = online.config.hidden_size
    reduction = Reduction(world.rank, world.size)
    projector = make_projector(config.projector, width, reduction)
    settings = config.objective.at(config.train.batch, width).settings()
    objective = OBJECTIVES[config.objective.name](width, reduction, **settings)
    model = Unsee(
        online,
        projector,
        objective,
        pooling=config.model.pooling,
        ema=config.target.kind == "ema",
        both=config.projector.side == "both",
    )
    return model.to(world.device)


def weight_of_auto(config: RunConfig, width: int) -> str | None:
    """What `objective.weight = auto` is for these settings; None where a number is given."""
    if getattr(config.objective, "weight", None) != "auto":
        return None
    weight = config.objective.at(config.train.batch, width).settings()["weight"]
    return f"objective.weight = auto: {weight:.2g}, for train.batch = {config.train.batch} and embeddings of {width}"


def shares_rows(config: RunConfig, model: Unsee) -> bool:
    """Whether several sentences share a row: `data.pack`, and what the encoder can do. UserError where they conflict."""
    if config.data.pack is False:
        return False
    exact = packs_exactly(model.online, config.model.pooling, config.model.max_tokens)
    if config.data.pack is True and not exact:
        raise UserError(
            f"data.pack = true, but {config.model.encoder} ignores the mask or the positions of packed rows, so "
            "sentences of one row would influence each other. Write data.pack: auto or false."
        )
    return exact


def build_development(config: RunConfig, stream: Stream, world: World) -> Development:
    def gather(rows: np.ndarray) -> np.ndarray:
        return gather_rows(world, torch.from_numpy(rows)).cpu().numpy()

    sts, retrieval = config.evaluate.sts, config.evaluate.retrieval
    probe = stream.sample(PROBE)
    if len(probe) < LEAST_BATCH <= stream.corpus.sentences:
        raise UserError(
            f"data.on_damage = skip, and fewer than {LEAST_BATCH} of the {stream.corpus.sentences} sentences of {stream.corpus.path} can be "
            "read: its shards are damaged or gone. Write `unsee shards verify DIR`, which names them, or copy the corpus again."
        )
    return Development(
        sts=load_sets(sts or ()),
        retrieval=load_question_sets(retrieval or ()),
        probe=probe,
        rank=world.rank,
        size=world.size,
        gather=gather,
    )
