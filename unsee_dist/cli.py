"""`unsee`: the commands. Each imports what it needs when it runs, so that --help and config wait for nothing.

A mistake of the user (ValueError, or a file the system refuses) is a sentence on stderr and exit code 2.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unsee_dist.config import ConfigError, load, presets
from unsee_dist.judge import commands as judge

MISTAKE = 2

app = typer.Typer(
    help="Train sentence encoders without labels, exactly, on any number of ranks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations without starting anything.")
shards_app = typer.Typer(no_args_is_help=True, help="Look at a prepared corpus.")
checkpoint_app = typer.Typer(no_args_is_help=True, help="Look at the checkpoints of a run.")
app.add_typer(config_app, name="config")
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(shards_app, name="shards")
app.add_typer(judge.app)  # evaluate, compare, export

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a preset.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings that win over the file."),
]
Corpus = Annotated[Path, typer.Argument(metavar="DIR", help="A folder written by `unsee prepare`.")]


# As many arguments as flags: typer reads the signature. The defaults are PrepareSettings' (a test compares).
@app.command()
def prepare(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files of text, jsonl, csv, tsv or parquet, also .gz or .zst; folders, globs, URLs, "
            "dataset:OWNER/NAME,CONFIG#SPLIT, - (standard input), or installed-docs.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write the corpus into.")],
    field: Annotated[str, typer.Option(help="The key or column of the text, where there is one.")] = "text",
    split: Annotated[str, typer.Option(help="line, or sentence: split each text by rule.")] = "line",
    language: Annotated[str, typer.Option(help="Of the texts that --split sentence splits.")] = "en",
    seed: Annotated[int, typer.Option(help="Of the shuffle and of what --dev holds out.")] = 0,
    dev: Annotated[int, typer.Option(help="Pairs held out of training into DIR/dev.tsv.")] = 0,
    min_bytes: Annotated[int, typer.Option(help="Shorter sentences are dropped.")] = 1,
    max_bytes: Annotated[int, typer.Option(help="Longer sentences are dropped.")] = 2000,
    min_words: Annotated[int, typer.Option(help="Sentences of fewer words are dropped.")] = 3,
    max_words: Annotated[int, typer.Option(help="Sentences of more words are dropped.")] = 200,
    min_letters: Annotated[float, typer.Option(help="Least share of letters, spaces apart.")] = 0.0,
    shard_sentences: Annotated[int, typer.Option(help="Sentences a shard, a multiple of 1024.")] = 262144,
    zst: Annotated[bool, typer.Option("--zst", help="Compress the members of the shards.")] = False,
    tokenizer: Annotated[
        str | None, typer.Option(help="An encoder: store its token ids too, which training then reads.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="With --tokenizer: the model.max_tokens to come.")] = 64,
    processes: Annotated[int | None, typer.Option(help="Absent: all usable cores. Changes no byte.")] = None,
) -> None:
    """Turn text into a corpus: cleaned, deduplicated, shuffled, in verified shards. Killed, run it again."""
    from unsee_dist.data.prepare import PrepareSettings
    from unsee_dist.data.prepare import prepare as run
    from unsee_dist.data.processes import usable
    from unsee_dist.data.report import progress

    bounds = {"min_bytes": min_bytes, "max_bytes": max_bytes, "min_words": min_words, "max_words": max_words}
    settings = PrepareSettings(
        seed=seed,
        field=field,
        split=split,
        language=language,
        min_letters=min_letters,
        dev=dev,
        shard_sentences=shard_sentences,
        zst=zst,
        **bounds,
    )
    pieces = None
    if tokenizer is not None:
        from unsee_dist.model.encoder import load_tokenizer

        pieces = load_tokenizer(tokenizer)  # before the work: a wrong name is said at once
    report = run(inputs, out, settings, Console(stderr=True), processes)
    if pieces is not None:
        from unsee_dist.data.tokenising import tokenise

        with progress(Console(stderr=True)) as bar:
            advance = bar.stage("tokenising", report.shards, "shards")
            summary = tokenise(out, pieces, max_tokens, processes or usable(), advance)
        report = replace(report, tokens=summary.rows(max_tokens))
    Console().print(report.table())


@app.command()
def train(config: Config, overrides: Overrides = None) -> None:
    """Train as CONFIG says. The same command again resumes the run.

    One process here; `deepspeed`, `torchrun` and `srun` start several with unsee_dist/train.py --config CONFIG.
    """
    load(config, overrides or ())  # all mistakes, before torch is there
    from unsee_dist.train import main as run

    raise typer.Exit(run(["--config", config, *(overrides or ())]))


@config_app.command("show")
def config_show(config: Config, overrides: Overrides = None) -> None:
    """Print every setting of CONFIG after extends and overrides, as YAML that loads equal."""
    typer.echo(load(config, overrides or ()).as_yaml(), nl=False)


@config_app.command("check")
def config_check(config: Config, overrides: Overrides = None) -> None:
    """Say whether CONFIG is right; if not, everything that is wrong."""
    settings = load(config, overrides or ())
    typer.echo(f"{config} is right: {settings.objective.name}, run.dir = {settings.run.dir}")


@config_app.command("ls")
def config_ls() -> None:
    """List the presets."""
    table = Table("preset", "what it is", box=None)
    for name, path in presets().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        table.add_row(name, first.removeprefix("#").strip())
    Console().print(table)


@shards_app.command("info")
def shards_info(corpus: Corpus) -> None:
    """Print what a corpus holds."""
    from unsee_dist.data.shards import Shards

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
    from unsee_dist.data.shards import Shards

    for sentence in Shards(corpus).head(count):
        typer.echo(sentence)


@shards_app.command("verify")
def shards_verify(corpus: Corpus) -> None:
    """Read every byte of a corpus against its checksums; name every damaged block."""
    from unsee_dist.data.shards import Shards

    shards, damage = Shards(corpus, on_damage="skip"), []
    for block in range(len(shards.blocks)):
        try:
            shards.read(block)
        except ValueError as error:
            damage.append(str(error))
    if damage:
        raise ValueError("\n".join(damage))
    Shards(corpus)  # the shards' sizes too: bytes behind the last block
    typer.echo(f"{corpus} is whole: {shards.sentences:,} sentences in {len(shards.blocks):,} blocks verified")


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder.", exists=True, file_okay=False)
]


@checkpoint_app.command("ls")
def checkpoint_ls(run: RunFolder) -> None:
    """List a run's checkpoints, oldest first."""
    from unsee_dist.training.checkpoint.shelf import summaries

    for found in summaries(run):
        typer.echo(
            "  ".join(f"{key} {value}" if key != "name" else f"{value}" for key, value in found.items())
        )


@checkpoint_app.command("verify")
def checkpoint_verify(run: RunFolder) -> None:
    """Read every byte of a run's checkpoints against their digests; name every damaged file."""
    from unsee_dist.training.checkpoint.shelf import folders, verify

    wrong = []
    for folder in folders(run / "checkpoints"):
        try:
            verify(folder)
            typer.echo(f"{folder.name} is whole")
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))


@checkpoint_app.command("rm")
def checkpoint_rm(
    run: RunFolder, names: Annotated[list[str], typer.Argument(help="Folders as `ls` shows them.")]
) -> None:
    """Remove checkpoints by name."""
    from unsee_dist.training.checkpoint.shelf import folders, remove

    known = {folder.name: folder for folder in folders(run / "checkpoints")}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"{run} has no checkpoint {', '.join(unknown)}. It has: {', '.join(known) or 'none'}."
        )
    for name in names:
        remove(known[name])


@app.command()
def quickstart() -> None:
    """Train a small encoder on the docstrings of the installed packages, and judge it."""
    from unsee_dist.quickstart import main as run

    run()


@app.command()
def bench(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]", help="Absent: the quickstart's preset, corpus and encoder, made if missing."
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("bench.json"),
    peer_unsee: Annotated[
        Path | None, typer.Option(help="A checkout of asparius/UNSEE, timed beside ours.")
    ] = None,
) -> None:
    """Time the parts of a step by case, and whole training beside other trainers: tables and a JSON."""
    from unsee_dist import bench as clock

    chosen, changed = config or "quickstart", list(overrides or ())
    if config is None:
        from unsee_dist import quickstart as start

        corpus, encoder = start.HOME / "corpus", start.HOME / "encoder"
        start.make_corpus(corpus)
        start.make_encoder(encoder, corpus)
        changed += [f"data.shards={corpus}", f"model.encoder=./{encoder}"]
    load(chosen, changed)
    clock.main(chosen, changed, out, peer_unsee)


@app.command()
def doctor() -> None:
    """Print versions, devices, threads and the launcher's environment, and what a run would use."""
    import torch

    names = ("unsee_dist", "torch", "deepspeed", "transformers", "mlflow", "sentence-transformers")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines = {
        "versions": ", ".join([f"python {sys.version.split()[0]}", *(_version(name) for name in names)]),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}, torch uses {torch.get_num_threads()}",
        "devices": ", ".join(gpus) or "no GPU",
        "launcher": _launcher(),
        "tracking": os.environ.get(
            "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI is not set: sqlite:///mlflow.db"
        ),
        "a run": _would_use(len(gpus), bool(gpus) and torch.cuda.is_bf16_supported()),
    }
    for name, line in lines.items():
        typer.echo(f"{name:<10} {line}")


def _version(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name} missing"


def _launcher() -> str:
    """Who started this process, from the variables that parallel/process.py reads."""
    seen = os.environ
    if "RANK" in seen:
        meeting = f"{seen.get('MASTER_ADDR', '?')}:{seen.get('MASTER_PORT', '?')}"
        return f"rank {seen['RANK']} of {seen.get('WORLD_SIZE', '?')} (deepspeed or torchrun), meeting at {meeting}"
    if "SLURM_STEP_NUM_TASKS" in seen:
        return f"rank {seen.get('SLURM_PROCID', '?')} of {seen['SLURM_STEP_NUM_TASKS']} (srun)"
    return "none: one process"


def _would_use(gpus: int, bf16: bool) -> str:
    if gpus == 0:
        several = "deepspeed --num_accelerators N unsee_dist/train.py --config CONFIG"
        return f"`unsee train` is 1 CPU rank; N ranks over gloo: DS_ACCELERATOR=cpu {several}"
    advice = "" if bf16 else "; these GPUs have no bf16: write parallel.precision=fp16 or fp32"
    several = f"deepspeed --num_gpus {gpus} unsee_dist/train.py --config CONFIG"
    return f"`unsee train` is 1 GPU rank; {gpus} over nccl: {several}{advice}"


def main() -> None:
    """The console script. Exit code 0, or 2 with a sentence; what is our own fault keeps its traceback."""
    try:
        app(prog_name="unsee")
    except ConfigError as error:
        typer.echo(str(error), err=True)
        sys.exit(MISTAKE)
    except (ValueError, OSError) as error:
        typer.echo(f"unsee: {error}", err=True)
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main()
