"""`unsee prepare` and `unsee shards`: text to a corpus, and a look at one."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from typer.models import OptionInfo

from unsee_dist.cli.options import AsJson
from unsee_dist.config.load import checked, flags_of, named_as_flags
from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.config.sections import ModelSettings
from unsee_dist.errors import UserError
from unsee_dist.log import progress_console, waiting
from unsee_dist.masking import masked
from unsee_dist.terminal import columns, command, wrapped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from unsee_dist.data.prepare.report import PreparationReport
    from unsee_dist.data.processes import TaskRunner

DEFAULT = PrepareSettings()
# By what a mistake calls it, in sentences that are also for callers from Python.
FLAGS = flags_of(*PrepareSettings.model_fields, "processes", "engine")
FLAGS |= {"model.encoder": "--tokenizer", "model.max_tokens": "--max-tokens"}
PRESET = "unsee-vicreg"  # in the command that is printed at the end

app = typer.Typer()
shards_app = typer.Typer(no_args_is_help=True, help="Look at a prepared corpus.")
app.add_typer(shards_app, name="shards")

Corpus = Annotated[
    str, typer.Argument(metavar="DIR", help="A folder written by `unsee prepare`, or its URL.")
]


def flag(name: str, *declarations: str) -> OptionInfo:
    """The option of a setting of PrepareSettings, with its help text."""
    return typer.Option(*declarations, help=PrepareSettings.model_fields[name].description)


# As many arguments as flags: typer reads the signature. Defaults, bounds and help are those of PrepareSettings.
@app.command()
@named_as_flags(FLAGS)
def prepare(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files of text, jsonl, csv, tsv, parquet or WebDataset tars, also .gz or .zst; folders, globs, URLs, pipes, "
            "dataset:OWNER/NAME,CONFIG#SPLIT, - (standard input), or installed-docs.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write the corpus into.")],
    field: Annotated[str, flag("field")] = DEFAULT.field,
    split: Annotated[str, flag("split")] = DEFAULT.split,
    language: Annotated[str, flag("language")] = DEFAULT.language,
    seed: Annotated[int, flag("seed")] = DEFAULT.seed,
    dev: Annotated[int, flag("dev")] = DEFAULT.dev,
    min_bytes: Annotated[int, flag("min_bytes")] = DEFAULT.min_bytes,
    max_bytes: Annotated[int, flag("max_bytes")] = DEFAULT.max_bytes,
    min_words: Annotated[int, flag("min_words")] = DEFAULT.min_words,
    max_words: Annotated[int, flag("max_words")] = DEFAULT.max_words,
    min_letters: Annotated[float, flag("min_letters")] = DEFAULT.min_letters,
    keep_language: Annotated[str | None, flag("keep_language")] = DEFAULT.keep_language,
    shard_sentences: Annotated[int, flag("shard_sentences")] = DEFAULT.shard_sentences,
    zst: Annotated[bool, flag("zst", "--zst")] = DEFAULT.zst,
    tokenizer: Annotated[
        str | None, typer.Option(help="An encoder: store its token ids too, which training then reads.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help=f"With --tokenizer: the model.max_tokens to come. Absent: {ModelSettings().max_tokens}."
        ),
    ] = None,
    on_bad_record: Annotated[str, flag("on_bad_record")] = DEFAULT.on_bad_record,
    processes: Annotated[
        int | None, typer.Option(help="Absent: all usable cores. No byte depends on it.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local, or ray: the cluster at RAY_ADDRESS, whose machines see DIR. No byte depends on it."
        ),
    ] = "local",
) -> None:
    """Turn text into a corpus: cleaned, deduplicated, shuffled, in verified shards. Killed, run it again."""
    arguments = dict(locals())
    settings = checked(PrepareSettings, {name: arguments[name] for name in PrepareSettings.model_fields})
    if tokenizer is None and max_tokens is not None:
        raise UserError(f"--max-tokens = {max_tokens} needs --tokenizer: write that, too.")
    max_tokens = ModelSettings().max_tokens if max_tokens is None else max_tokens
    with waiting(f"reading {', '.join(map(masked, inputs))}"):
        from unsee_dist.data.prepare.pipeline import prepare as run
        from unsee_dist.data.processes import worker_pool
    loaded = _load_tokenizer(tokenizer)  # before the work, so that a wrong name is reported at once
    with worker_pool(processes, engine) as run_tasks:  # a Ray cluster is connected to once for both
        report = run(inputs, out, settings, progress_console(), processes, engine)
        if loaded is not None:
            report = _tokenise(report, loaded, max_tokens, run_tasks)
    _print_report(report, tokenizer, max_tokens)


def _load_tokenizer(source: str | None) -> PreTrainedTokenizerFast | None:
    if source is None:
        return None
    from unsee_dist.model.encoder import load_tokenizer

    return load_tokenizer(source)


def _tokenise(
    report: PreparationReport, tokenizer: PreTrainedTokenizerFast, max_tokens: int, run_tasks: TaskRunner
) -> PreparationReport:
    """Store the token ids of the corpus of a report beside it; returns the report with their numbers."""
    from unsee_dist.data.corpus.tokenise import publish, tokenise
    from unsee_dist.data.prepare.report import progress

    with progress(progress_console()) as bar:
        advance = bar.stage("tokenising", report.shards, "shards")
        tokenise(report.out, tokenizer, max_tokens, run_tasks, advance)
    summary = publish(report.out, tokenizer, max_tokens)
    assert summary is not None
    return replace(report, tokens=summary.rows(max_tokens))


def _print_report(report: PreparationReport, tokenizer: str | None, max_tokens: int) -> None:
    """Print the report, what was left out, and the command that comes next: paths as they are, never wrapped."""
    typer.echo(report.title())
    Console(markup=False, emoji=False).print(report.table())
    for notice in report.notices():
        text = wrapped(notice, columns(sys.stderr))
        typer.secho(text, err=True, bold=notice.startswith("MOST"))
    settings = [f"data.shards={report.out}"]
    if report.dev:
        settings.append(f"evaluate.retrieval={report.out / 'dev.tsv'}")
    if tokenizer is not None:
        settings += [f"model.encoder={tokenizer}", f"model.max_tokens={max_tokens}"]
    typer.echo(command(f"next: unsee train {PRESET} {shlex.join(settings)}", columns(sys.stdout)))


@shards_app.command("info")
def shards_info(corpus: Corpus, as_json: AsJson = False) -> None:
    """Print what a corpus holds."""
    from unsee_dist.data.corpus.shards import Shards

    shards = Shards(corpus, setting="DIR")
    files = shards.blocks.layout
    if as_json:
        numbers: dict[str, object] = {
            "sentences": shards.sentences,
            "blocks": len(shards.blocks),
            "shards": len(files.names),
        }
        numbers |= {"bytes": int(files.bytes.sum()), "fingerprint": shards.fingerprint}
        typer.echo(json.dumps(numbers))
        return
    typer.echo(
        f"{shards.sentences:,} sentences in {len(shards.blocks):,} blocks, {len(files.names):,} {'shard' if len(files.names) == 1 else 'shards'}, "
        f"{files.bytes.sum() / 1e6:,.1f} MB, fingerprint {shards.fingerprint}"
    )


@shards_app.command("head")
def shards_head(
    corpus: Corpus,
    count: Annotated[int, typer.Option("-n", min=1, help="Sentences to print.")] = 10,
) -> None:
    """Print the first sentences of a corpus, by id."""
    from unsee_dist.data.corpus.shards import Shards

    for sentence in Shards(corpus, setting="DIR").head(count):
        typer.echo(sentence)


@shards_app.command("verify")
def shards_verify(corpus: Corpus) -> None:
    """Read every byte of a corpus and of its tokens against their checksums; name every damaged block."""
    from unsee_dist.data.corpus.verify import verify

    for line in verify(corpus):
        typer.echo(line)
