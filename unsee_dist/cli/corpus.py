"""`unsee prepare` and `unsee shards`: text to a corpus, and a look at one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unsee_dist.config.sections import ModelSettings
from unsee_dist.data.prepare.settings import PrepareSettings
from unsee_dist.errors import UserError

app = typer.Typer()
shards_app = typer.Typer(no_args_is_help=True, help="Look at a prepared corpus.")
app.add_typer(shards_app, name="shards")

Corpus = Annotated[Path, typer.Argument(metavar="DIR", help="A folder written by `unsee prepare`.")]


# typer reads the flags from the signature. The defaults are those of PrepareSettings.
@app.command()
def prepare(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files of text, jsonl, csv, tsv, parquet or WebDataset tars, also .gz or .zst; folders, globs, URLs, "
            "dataset:OWNER/NAME,CONFIG#SPLIT, - (standard input), or installed-docs.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write the corpus into.")],
    field: Annotated[
        str, typer.Option(help="The key or column of the text, where there is one.")
    ] = PrepareSettings.field,
    split: Annotated[
        str, typer.Option(help="line, or sentence: split each text by rule.")
    ] = PrepareSettings.split,
    language: Annotated[
        str, typer.Option(help="Of the texts that --split sentence splits.")
    ] = PrepareSettings.language,
    seed: Annotated[
        int, typer.Option(help="Of the shuffle and of what --dev holds out.")
    ] = PrepareSettings.seed,
    dev: Annotated[
        int, typer.Option(help="Pairs held out of training into DIR/dev.tsv.")
    ] = PrepareSettings.dev,
    min_bytes: Annotated[
        int, typer.Option(help="Shorter sentences are dropped.")
    ] = PrepareSettings.min_bytes,
    max_bytes: Annotated[int, typer.Option(help="Longer sentences are dropped.")] = PrepareSettings.max_bytes,
    min_words: Annotated[
        int, typer.Option(help="Sentences of fewer words are dropped.")
    ] = PrepareSettings.min_words,
    max_words: Annotated[
        int, typer.Option(help="Sentences of more words are dropped.")
    ] = PrepareSettings.max_words,
    min_letters: Annotated[
        float, typer.Option(help="Least share of letters, spaces apart.")
    ] = PrepareSettings.min_letters,
    keep_language: Annotated[
        str | None, typer.Option(help="As en: sentences in another language are dropped. Absent: none is.")
    ] = None,
    shard_sentences: Annotated[
        int, typer.Option(help="Sentences a shard, a multiple of 1024.")
    ] = PrepareSettings.shard_sentences,
    zst: Annotated[bool, typer.Option("--zst", help="Compress the members of the shards.")] = False,
    tokenizer: Annotated[
        str | None, typer.Option(help="An encoder: store its token ids too, which training then reads.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="With --tokenizer: the model.max_tokens to come.")
    ] = ModelSettings().max_tokens,
    processes: Annotated[int | None, typer.Option(help="Absent: all usable cores. Changes no byte.")] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local, or ray: the cluster at RAY_ADDRESS, whose machines see DIR. Changes no byte."
        ),
    ] = "local",
) -> None:
    """Turn text into a corpus: cleaned, deduplicated, shuffled, in verified shards. Killed, run it again."""
    from unsee_dist.data.prepare.pipeline import prepare as run
    from unsee_dist.data.prepare.report import progress
    from unsee_dist.data.processes import worker_pool

    bounds = {"min_bytes": min_bytes, "max_bytes": max_bytes, "min_words": min_words, "max_words": max_words}
    settings = PrepareSettings(
        seed=seed,
        field=field,
        split=split,
        language=language,
        min_letters=min_letters,
        keep_language=keep_language,
        dev=dev,
        shard_sentences=shard_sentences,
        zst=zst,
        **bounds,
    )
    pieces = None
    if tokenizer is not None:
        from unsee_dist.model.encoder import load_tokenizer

        pieces = load_tokenizer(tokenizer)  # before the work, so that a wrong name is reported at once
    with worker_pool(processes, engine) as work:  # a Ray cluster is connected to once for both
        report = run(inputs, out, settings, Console(stderr=True), processes, engine)
        if pieces is not None:
            from unsee_dist.data.corpus.tokenise import publish, tokenise

            with progress(Console(stderr=True)) as bar:
                advance = bar.stage("tokenising", report.shards, "shards")
                tokenise(out, pieces, max_tokens, work, advance)
            summary = publish(out, pieces, max_tokens)
            assert summary is not None
            report = replace(report, tokens=summary.rows(max_tokens))
    Console().print(report.table())


@shards_app.command("info")
def shards_info(corpus: Corpus) -> None:
    """Print what a corpus holds."""
    from unsee_dist.data.corpus.shards import Shards

    shards = Shards(corpus)
    files = {block.shard for block in shards.blocks}
    size = sum(block.length for block in shards.blocks)
    typer.echo(
        f"{shards.sentences:,} sentences in {len(shards.blocks):,} blocks, {len(files):,} shards, "
        f"{size / 1e6:,.1f} MB, fingerprint {shards.fingerprint}"
    )


@shards_app.command("head")
def shards_head(
    corpus: Corpus,
    count: Annotated[int, typer.Option("-n", min=1, help="Sentences to print.")] = 10,
) -> None:
    """Print the first sentences of a corpus, by id."""
    from unsee_dist.data.corpus.shards import Shards

    for sentence in Shards(corpus).head(count):
        typer.echo(sentence)


@shards_app.command("verify")
def shards_verify(corpus: Corpus) -> None:
    """Read every byte of a corpus against its checksums; name every damaged block."""
    from unsee_dist.data.corpus.shards import Shards

    shards, damage = Shards(corpus, on_damage="skip"), []
    for block in range(len(shards.blocks)):
        try:
            shards.read(block)
        except UserError as error:
            damage.append(str(error))
    if damage:
        raise UserError("\n".join(damage))
    Shards(corpus)  # the shards' sizes too: bytes behind the last block
    typer.echo(f"{corpus} is whole: {shards.sentences:,} sentences in {len(shards.blocks):,} blocks verified")
