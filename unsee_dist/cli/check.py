"""`unsee config check`: everything of a run that this machine can look at before it starts, and what it did not look at.

Nothing stays written, nothing is downloaded or trained.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unsee_dist.config import RunConfig
from unsee_dist.config.sections import DataSettings
from unsee_dist.errors import TransientError, UserError, is_transient, writing
from unsee_dist.files.hub import is_hub_name
from unsee_dist.files.remote import is_remote
from unsee_dist.masking import masked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from unsee_dist.data.corpus.mix import Mix
    from unsee_dist.data.corpus.shards import Shards

LATER = "the devices of the ranks: they are known when the run starts"


@dataclass
class Opened:
    """What was opened so far."""

    corpus: Shards | Mix | None = None
    tokenizer: PreTrainedTokenizerFast | None = None


class NotHere(Exception):
    """This cannot be looked at from here; the words say why."""


def check_all(config: RunConfig, ranks: int) -> tuple[list[str], list[str]]:
    """(what is right, what was not checked), a line each. UserError with a line for every mistake.

    TransientError when there is no mistake, and a fault that passes kept something from being looked at.
    """
    right: list[str] = []
    unchecked: list[str] = []
    wrong: list[str] = []
    passing: list[str] = []
    opened = Opened()
    looks = (
        _folder,
        _resume,
        partial(_corpus, opened),
        partial(_encoder, opened),
        partial(_stream, opened, ranks),
    )
    for look in (*looks, _sts, _retrieval, _tracker):
        try:
            right += look(config)
        except NotHere as reason:
            unchecked.append(str(reason))
        except UserError as error:
            wrong.append(str(error))
        except OSError as error:
            if not is_transient(error):
                raise
            passing.append(str(error))
    if wrong:  # it stays wrong when the fault has passed
        raise UserError("\n".join(wrong + passing))
    if passing:
        raise TransientError("\n".join(passing))
    return right, [*unchecked, LATER]


def _folder(config: RunConfig) -> Iterator[str]:
    folder = Path(config.run.dir)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        kind = "it is a file" if there.exists() else "it is a link to nothing"
        raise UserError(f"run.dir = {folder} cannot be written: {there}: {kind}. Write another one.")
    # By doing it: /proc, a read-only mount and a quota do not show in the rights of the folder.
    with (
        writing(f"run.dir = {folder}", "Write another one."),
        tempfile.TemporaryDirectory(dir=there, prefix=".unsee-"),
    ):
        pass
    yield f"run.dir = {folder}: {'is there' if there == folder else 'can be made'}"


def _resume(config: RunConfig) -> Iterator[str]:
    if config.resume in ("auto", "never"):
        return
    from unsee_dist.distributed.world import World
    from unsee_dist.training.checkpoint.resume import of_other_run

    yield f"resume = {config.resume}: {of_other_run(World.alone(), Path(config.resume)).name}, whole"


def _corpus(opened: Opened, config: RunConfig) -> Iterator[str]:
    from unsee_dist.data import open_corpus

    key, value = ("data.mix", config.data.mix) if config.data.mix else ("data.shards", config.data.shards)
    if is_remote(value):
        raise NotHere(f"{key} = {masked(value)}: a store on the network")
    if value == DataSettings().shards and not Path(value).exists():
        raise NotHere(f"{key} = {value}: the presets' own, which is not here. Write data.shards=DIR")
    opened.corpus = corpus = open_corpus(config.data)
    yield f"{key} = {value}: {corpus.sentences:,} sentences"


def _encoder(opened: Opened, config: RunConfig) -> Iterator[str]:
    name = config.model.encoder
    if not os.path.exists(os.path.expanduser(name)) and not _is_cached(name):
        raise NotHere(f"model.encoder = {name}: a name on the Hub that is not in this machine's cache")
    from unsee_dist.model.checked import load_checked
    from unsee_dist.model.encoder import layout_warning

    encoder, tokenizer = load_checked(config.model)
    opened.tokenizer = tokenizer
    yield (
        f"model.encoder = {name}: {encoder.config.model_type}, {encoder.config.hidden_size} wide, {len(tokenizer):,} pieces, "
        f"takes model.max_tokens = {config.model.max_tokens}"
    )
    if warning := layout_warning(name, encoder):
        yield warning


def _stream(opened: Opened, ranks: int, config: RunConfig) -> Iterator[str]:
    """Whether batches can be made of both; of the ranks alone, where one of them could not be looked at."""
    config.train.part(ranks)
    if opened.corpus is not None and opened.tokenizer is not None:
        from unsee_dist.data.stream.stream import check_stream

        check_stream(opened.corpus, opened.tokenizer, config, ranks)
    yield from ()


def _is_cached(name: str) -> bool:
    """A name that no model on the Hub can have is loaded, too: for the sentence about a folder that is not there."""
    from huggingface_hub import try_to_load_from_cache

    return (
        _is_path(name)
        or not is_hub_name(name)
        or isinstance(try_to_load_from_cache(name, "config.json"), str)
    )


def _sts(config: RunConfig) -> Iterator[str]:
    from unsee_dist.evaluation.sts_files import load_sets
    from unsee_dist.evaluation.tables import is_table

    sources = _listed(config.evaluate.sts)
    here = [
        source
        for source in sources
        if _is_path(source) or is_table(Path(source)) or not is_hub_name(source.partition(":")[0])
    ]
    for name, pairs in load_sets(here).items():
        yield f"evaluate.sts: {name}, {len(pairs.scores):,} pairs"
    if names := [source for source in sources if source not in here]:
        raise NotHere(f"evaluate.sts = {', '.join(names)}: names on the Hub")


def _is_path(name: str) -> bool:
    """Whether a name that could be one on the Hub is that of something here: a link to nothing, or below a file, too."""
    first = name.partition("/")[0]
    return os.path.lexists(name) or (os.path.lexists(first) and not os.path.isdir(first))


def _retrieval(config: RunConfig) -> Iterator[str]:
    from unsee_dist.evaluation.question_files import load_question_sets

    for name, questions in load_question_sets(_listed(config.evaluate.retrieval)).items():
        yield f"evaluate.retrieval: {name}, {len(questions.queries):,} questions"


def _listed(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _tracker(config: RunConfig) -> Iterator[str]:
    from unsee_dist.tracking.mlflow_sink import tracking_uri

    if config.track.mlflow:
        yield f"track.mlflow: to {masked(tracking_uri())}, not connected to"
