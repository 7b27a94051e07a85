"""Sentences in rows of tokens -> one embedding a sentence.

Shapes: R rows, T tokens a row, V views, S sentences of the micro_batch, D width.
Packed rows hold several sentences, kept apart by a block-diagonal mask (4-D, True = may attend) and positions
that restart at 0. The sums of mean pooling are fp32 whatever the encoder computes in.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unsee_dist.config.sections import Pooling
from unsee_dist.data.stream.mask_keys import mask_keys
from unsee_dist.data.stream.packing import MicroBatch, attention_mask, pack
from unsee_dist.errors import UserError, is_our_bug
from unsee_dist.files.hub import is_load_error, load_failure, reason
from unsee_dist.model.dropout import UnknownShape, install, masks_for, masks_of, register, remove
from unsee_dist.model.limits import check_both_sides, check_kind
from unsee_dist.model.sound import loads_sound_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

Loaded = TypeVar("Loaded")


def load_encoder(name: str, dropout: float | None) -> PreTrainedModel:
    """A Hugging Face encoder in fp32, training mode, without a pooler. `name`: a folder or a hub name.

    A pooler gets no gradient: in the optimizer, weight decay would move it under ZeRO 1-3 and not under 0.
    """
    from transformers import AutoConfig

    with quiet_transformers():
        config = _loaded(name, partial(AutoConfig.from_pretrained, trust_remote_code=False))
    check_kind(name, config)
    overrides = {} if dropout is None else dict.fromkeys(_dropouts(config, dropout), dropout)
    arguments = {"dtype": torch.float32, "attn_implementation": register(), **overrides}
    with quiet_transformers():
        encoder = _loaded(name, partial(_load_weights, arguments=arguments))
    not_finite = [key for key, weight in encoder.named_parameters() if not torch.isfinite(weight).all()]
    if not_finite:
        raise UserError(
            f"model.encoder = {name} has weights that are not finite (NaN or infinite): {not_finite[0]}. Training cannot "
            "repair them: write another encoder."
        )
    if getattr(encoder, "pooler", None) is not None:
        encoder.register_module("pooler", nn.Identity())  # LayoutLM calls it, whether it is there or not
    check_both_sides(name, encoder)
    install(encoder)
    if not drops_by_sentence(encoder.train()):
        remove(encoder)
    return encoder.train()


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The encoder's fast tokenizer. Raises UserError when the folder has none."""
    from transformers import AutoTokenizer

    path = Path(os.path.expanduser(_source(name)))
    if os.path.isdir(path) and not _has_tokenizer(path):
        raise UserError(
            f"model.encoder = {name} lacks a tokenizer. Copy tokenizer.json and tokenizer_config.json into that folder."
        )
    tokenizer = _loaded(name, partial(AutoTokenizer.from_pretrained, trust_remote_code=False))
    if not tokenizer.is_fast:
        raise UserError(
            f"model.encoder = {name} has only a slow tokenizer. Save one with tokenizer.json beside it."
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(
            f"model.encoder = {name} lacks a tokenizer (no vocabulary was found). "
            "Copy tokenizer.json and tokenizer_config.json into that folder."
        )
    return cast("PreTrainedTokenizerFast", tokenizer)


def _source(name: str) -> str:
    """What transformers loads from: a folder, or the name itself. UserError for a folder without an encoder."""
    path = Path(os.path.expanduser(name))
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not os.path.isdir(path):
        raise UserError(
            f"model.encoder = {name} is not a folder. Write the folder of an encoder or a hub name."
        )
    if os.path.isdir(path) and not (path / "config.json").is_file():
        raise UserError(
            f"model.encoder = {name} has no config.json, so it is not a Hugging Face encoder. Write the folder of one."
        )
    return str(path) if os.path.isdir(path) else name


def _loaded(name: str, load: Callable[[str], Loaded]) -> Loaded:
    """What `load` makes of an encoder's folder or hub name. UserError: it is missing or damaged; TransientError: the Hub does
    not answer now."""
    source = _source(name)
    try:
        return load(source)
    except Exception as error:
        if not is_load_error(error, works_elsewhere=partial(loads_sound_encoder, load)):
            raise
        raise load_failure(_unreachable(name, Path(os.path.expanduser(name)), error), error) from error


def _why_not_made(error: Exception) -> str:
    if "ignore_mismatched_sizes" in str(error):
        return (
            "its weights have other shapes than its config.json states. Correct it, or write another encoder."
        )
    if isinstance(error, OSError | ValueError | SafetensorError):
        return reason(error)
    why = " ".join(str(error).split())[:300]
    return (
        f"no model can be made of its config.json and its tokenizer ({type(error).__name__}: {why}). Correct it, or write "
        "another encoder."
    )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, and no reports of unexpected keys: the head of an encoder is dropped on purpose."""
    from transformers.utils import logging

    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def _load_weights(source: str, arguments: Mapping[str, object]) -> PreTrainedModel:
    from transformers import AutoModel

    load = partial(AutoModel.from_pretrained, source, trust_remote_code=False, **arguments)
    try:
        return cast("PreTrainedModel", load(add_pooling_layer=False))
    except TypeError:  # DistilBERT, ELECTRA and others have no such argument, and no pooler
        return cast("PreTrainedModel", load())


def _has_tokenizer(path: Path) -> bool:
    return any(
        (path / file).is_file() for file in ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
    )


def _unreachable(name: str, path: Path, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"model.encoder = {name} comes with python code of its own, which is never run. Write an encoder of a type "
            "that transformers itself has, such as bert-base-uncased."
        )
    if os.path.isdir(path):
        return f"model.encoder = {name} could not be loaded: {_why_not_made(error)}"
    return (
        f"model.encoder = {name} is neither a folder here nor in the local hub cache, and the hub cannot be reached. "
        "Write a folder, check the spelling, or download it first where there is a network: "
        f"`hf download {name}`."
    )


# Dropouts of heads, which an encoder here does not have, and of whole layers, which is another thing than dropout.
OF_HEADS = ("classifier", "seq_classif", "qa_", "summary", "pooler")
OF_LAYERS = ("layerdrop", "drop_path")


def _dropouts(config: PreTrainedConfig, dropout: float) -> list[str]:
    """The names of every dropout in this configuration. 0 also stops that whole layers are left out by chance."""
    kept = OF_HEADS if dropout == 0 else OF_HEADS + OF_LAYERS
    return [
        name
        for name, value in vars(config).items()
        if "drop" in name and type(value) in (float, int) and not name.startswith(kept)
    ]


def encode(encoder: PreTrainedModel, micro_batch: MicroBatch, pooling: Pooling, views: int) -> Tensor:
    """(V * S, D) fp32: every sentence `views` times in one pass, view by view, each under its own dropout masks."""
    ids_RT, segments_RT = micro_batch.input_ids, micro_batch.segment_ids
    times = views // micro_batch.views  # rows that hold all views are not repeated
    arguments: dict[str, Tensor] = {"input_ids": ids_RT.repeat(times, 1)}
    if micro_batch.packed:
        arguments["attention_mask"] = _additive(attention_mask(segments_RT), encoder.dtype).repeat(
            times, 1, 1, 1
        )
        arguments["position_ids"] = (micro_batch.position_ids + _first_position(encoder)).repeat(times, 1)
    else:
        arguments["attention_mask"] = (segments_RT >= 0).long().repeat(times, 1)
    with masks_for(encoder, micro_batch, views):
        hidden_RTD = encoder(**arguments)[0]
    offsets = torch.arange(times, device=ids_RT.device).repeat_interleave(len(ids_RT)) * micro_batch.segments
    sentence_RT = torch.where(
        segments_RT.repeat(times, 1) >= 0, segments_RT.repeat(times, 1) + offsets[:, None], -1
    )
    return pool(hidden_RTD, sentence_RT, views * micro_batch.sentences, pooling)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where attention is allowed, the dtype's lowest number elsewhere: for sdpa and for eager attention."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
        ~allowed, torch.finfo(dtype).min
    )


def pool(hidden_RTD: Tensor, sentence_RT: Tensor, sentences: int, pooling: Pooling) -> Tensor:
    """(R, T, D) hidden states and the sentence of every token (-1 = padding) -> (S, D) fp32."""
    hidden_ND, sentence_N = hidden_RTD.flatten(0, 1), sentence_RT.flatten()
    # padding goes into an extra slot, which is cut off
    slot_N = torch.where(sentence_N >= 0, sentence_N, sentences)
    if pooling == "cls":
        places_N = torch.arange(len(slot_N), device=slot_N.device)
        first_S = places_N.new_full((sentences + 1,), len(slot_N)).scatter_reduce(0, slot_N, places_N, "amin")
        return hidden_ND[first_S[:-1]].float()
    means: Tensor = _SegmentMeans.apply(hidden_ND, slot_N, sentences)
    return means


class _SegmentMeans(torch.autograd.Function):
    """(N, D) rows and the segment of each (`segments` = none) -> (segments, D) fp32 means. Every segment has rows.

    Summed in the order of the rows, on any device: index_add adds in any order on a GPU, so that two runs differ in
    their last bits. The gradient is a gather.
    """

    @staticmethod
    def forward(ctx: _Kept, x_ND: Tensor, segment_N: Tensor, segments: int) -> Tensor:
        sums_SD, counts_S = (_added if x_ND.device.type == "cpu" else _reduced)(x_ND, segment_N, segments)
        ctx.save_for_backward(segment_N, counts_S)
        ctx.dtype = x_ND.dtype
        return sums_SD / counts_S[:, None]

    @staticmethod
    def backward(ctx: _Kept, grad_SD: Tensor) -> tuple[Tensor, None, None]:
        segment_N, counts_S = ctx.saved_tensors
        each_SD = torch.cat([grad_SD / counts_S[:, None], grad_SD.new_zeros(1, grad_SD.shape[1])])
        return each_SD.to(ctx.dtype)[segment_N], None, None


def _added(x_ND: Tensor, segment_N: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """(segments, D) fp32 sums and (segments,) counts. In the order of the rows on a CPU only."""
    sums_SD = x_ND.new_zeros(segments + 1, x_ND.shape[1], dtype=torch.float32)
    sums_SD.index_add_(0, segment_N, x_ND.float())
    counts_S = torch.bincount(segment_N, minlength=segments + 1)
    return sums_SD[:-1], counts_S[:-1]


def _reduced(x_ND: Tensor, segment_N: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """The same in the order of the rows on a GPU: each sum is one thread's."""
    order_N = segment_N.argsort(stable=True)
    ids_S = torch.arange(segments + 1, device=segment_N.device)
    counts_S = torch.searchsorted(segment_N[order_N], ids_S).diff()
    # unsafe: the check of the lengths would read them back from the GPU
    sums_SD = torch.segment_reduce(x_ND[order_N].float(), "sum", lengths=counts_S, unsafe=True)
    return sums_SD, counts_S


class _Kept(torch.autograd.function.FunctionCtx):
    """What forward keeps for backward."""

    saved_tensors: tuple[Tensor, Tensor]
    dtype: torch.dtype


def layout_warning(name: str, encoder: PreTrainedModel) -> str:
    """The sentence about an encoder from `load_encoder` whose masks are torch's; "" where they belong to the sentences."""
    if masks_of(encoder) is not None:
        return ""
    return (
        f"{name} does not encode a sentence in the same way beside any others (it draws its dropout by torch's own generator in places that "
        "are not known here, or looks beyond the sentence): train.micro_batch, parallel.zero and the number of ranks change "
        "the result."
    )


def _first_position(encoder: PreTrainedModel) -> int:
    """RoBERTa and MPNet number positions from the padding index + 1; the others from 0."""
    if encoder.config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        return int(encoder.config.pad_token_id) + 1
    return 0


@torch.no_grad()
def drops_by_sentence(encoder: PreTrainedModel) -> bool:
    """Whether every dropout of this encoder draws the masks of a sentence. It is tried, not derived from its name.

    Compares three sentences encoded together with each of them alone, under dropout: whatever drops by torch's
    generator, or by the place in the batch, differs. A generator that was used is seen also where nothing was dropped.
    """
    generator = torch.Generator().manual_seed(0)
    size = encoder.config.vocab_size
    tokens = [torch.randint(5, size, (n,), generator=generator).tolist() for n in (9, 5, 7)]
    keys = mask_keys(0, 0, np.arange(3))
    pad, device = encoder.config.pad_token_id or 0, next(encoder.parameters()).device
    with torch.random.fork_rng([]):
        before = torch.get_rng_state()
        try:
            together = encode(encoder, pack(tokens, 24, pad, False, keys).to(device), "mean", 1)
            alone = [
                encode(encoder, pack([tokens[i]], 24, pad, False, keys[i : i + 1]).to(device), "mean", 1)
                for i in range(3)
            ]
        except UnknownShape:
            return False
        if not torch.equal(torch.get_rng_state(), before):
            return False
    bound = 1e-4 if next(encoder.parameters()).dtype == torch.float32 else 5e-2
    return bool((together - torch.cat(alone)).abs().max() <= bound * together.abs().max())


@torch.no_grad()
def packs_exactly(encoder: PreTrainedModel, pooling: Pooling, max_tokens: int) -> bool:
    """Whether this encoder separates sentences of up to `max_tokens` that share a row. It is tried, not derived from its name.

    Compares packed with padded embeddings of three sentences of random tokens, the longest of all lengths among them: layers
    that look at near tokens only (ModernBERT's) lose that limit under a 4-D mask. Also under dropout, where its masks are the
    sentences'. What an encoder makes of the mask or the positions differs by orders of magnitude more than the bound.
    """
    if "position_ids" not in inspect.signature(encoder.forward).parameters:
        return False
    generator = torch.Generator().manual_seed(0)
    size, pad = encoder.config.vocab_size, encoder.config.pad_token_id or 0
    lengths = (min(5, max_tokens), max_tokens, min(7, max_tokens))  # an encoder may have no more positions
    tokens = [torch.randint(5, size, (n,), generator=generator).tolist() for n in lengths]
    training, device = encoder.training, next(encoder.parameters()).device
    bound = 2e-5 if next(encoder.parameters()).dtype == torch.float32 else 5e-2
    ways = (
        {False: None, True: mask_keys(0, 0, np.arange(3))} if masks_of(encoder) is not None else {False: None}
    )
    pairs = {
        drops: [pack(tokens, max_tokens + 12, pad, shared, keys).to(device) for shared in (True, False)]
        for drops, keys in ways.items()
    }
    try:
        for drops, rows in pairs.items():
            encoder.train(drops)
            packed, padded = (encode(encoder, row, pooling, 1) for row in rows)
            if not (packed - padded).abs().max() <= bound * padded.abs().max():  # NaN is not exact
                return False
    except UnknownShape:  # the encoder's own: it makes something else of a 4-D mask
        return False
    except Exception as error:  # code of somebody else that takes no 4-D mask may raise anything
        if is_our_bug(error):
            raise
        return False
    finally:
        encoder.train(training)
    return True
