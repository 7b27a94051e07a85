"""`unsee train`, `unsee config` and `unsee checkpoint`: a run, its settings, its checkpoints."""

from __future__ import annotations

import json
import re
import sys
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unsee_dist.cli.options import AsJson, TakesSettings, presets_that_begin, settings_that_begin
from unsee_dist.config import CONFIG, load, presets
from unsee_dist.errors import UserError
from unsee_dist.log import waiting
from unsee_dist.terminal import columns, wrapped

app = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations without starting anything.")
checkpoint_app = typer.Typer(no_args_is_help=True, help="Look at the checkpoints of a run.")
app.add_typer(config_app, name="config")
app.add_typer(checkpoint_app, name="checkpoint")

Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="A YAML file, or the name of a preset.", autocompletion=presets_that_begin
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION.KEY=VALUE]...",
        help="Settings that win over the file.",
        autocompletion=settings_that_begin,
    ),
]

Ranks = Annotated[
    int | None,
    typer.Option(
        min=1, help="For how many ranks a dry run or a check is made. Absent: the launcher's, else 1."
    ),
]


@app.command(cls=TakesSettings)
def train(
    config: Config,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all of it, try some steps, and say what the run needs.")
    ] = False,
    ranks: Ranks = None,
    as_json: AsJson = False,
) -> None:
    """Train by the settings of CONFIG. The same command again resumes the run.

    One process here; `deepspeed --module`, `torchrun -m` and `srun python -m` start several: unsee_dist.train --config CONFIG.
    `unsee train --config CONFIG` means the same as `unsee train CONFIG`.
    """
    if dry_run:
        return print_plan(config, overrides, ranks, as_json, with_probe=True)
    if ranks is not None or as_json:
        given = "--json" if ranks is None else f"--ranks {ranks}"
        raise UserError(f"{given} needs --dry-run: a run has the ranks that its launcher starts.")
    load(config, overrides or ())  # every mistake is found before torch is imported
    from unsee_dist.train import main as run

    raise typer.Exit(run(["--config", config, *(overrides or ())]))


def print_plan(
    config: str, overrides: list[str] | None, ranks: int | None, as_json: bool, with_probe: bool
) -> None:
    """The report of a run that is not started; under a launcher rank 0 makes it."""
    settings = load(config, overrides or ())
    from unsee_dist.cli.plan import as_lines, make_plan
    from unsee_dist.supervision.signals import launched_as

    rank, launched = launched_as()
    if rank:
        return
    with waiting(
        "opening corpus and encoder, trying some steps" if with_probe else "opening corpus and encoder"
    ):
        plan = make_plan(settings, ranks or launched, with_probe)
    if as_json:
        typer.echo(json.dumps(plan | {"config": config}, indent=1))
        return
    width = columns(sys.stdout)
    typer.echo(wrapped(f"{config} is right: {settings.objective.name}, run.dir = {settings.run.dir}", width))
    for line in as_lines(plan):
        typer.echo(wrapped(line, width))


@config_app.command("show", cls=TakesSettings)
def config_show(config: Config, overrides: Overrides = None) -> None:
    """Print every setting of CONFIG after extends and overrides, as YAML that loads equal."""
    typer.echo(load(config, overrides or ()).as_yaml(), nl=False)


@config_app.command("check", cls=TakesSettings)
def config_check(
    config: Config, overrides: Overrides = None, ranks: Ranks = None, as_json: AsJson = False
) -> None:
    """Check CONFIG and what it names: folders, corpus, encoder, evaluation files. Prints every mistake.

    `unsee train CONFIG --dry-run` says the same and tries some steps.
    """
    print_plan(config, overrides, ranks, as_json, with_probe=False)


@config_app.command("ls")
def config_ls(as_json: AsJson = False) -> None:
    """List the presets."""
    described = {name: _first_sentence(path.read_text(encoding="utf-8")) for name, path in presets().items()}
    if as_json:
        typer.echo(json.dumps(described))
        return
    table = Table("preset", "what it is", box=None)
    for name, sentence in described.items():
        table.add_row(name, sentence)
    Console(markup=False, emoji=False).print(table)


def _first_sentence(preset: str) -> str:
    """Of the comment that a preset begins with."""
    lines = takewhile(lambda line: line.startswith("#"), preset.splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return re.split(r"(?<=\.) (?=[A-Z`])", comment, maxsplit=1)[0]


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder.", exists=True, file_okay=False)
]


def _check_is_run(run: Path) -> None:
    """UserError: neither settings nor checkpoints of a run are in this folder."""
    from unsee_dist.training.checkpoint.directory import CHECKPOINTS

    if (run / CONFIG).is_file() or (run / CHECKPOINTS).is_dir():
        return
    above = [folder for folder in run.resolve().parents[:2] if (folder / CHECKPOINTS).is_dir()]
    instead = f"{above[0]}, which is one" if above else "the run.dir of a training"
    raise UserError(
        f"{run} is not a run's folder: it has neither config.yaml nor checkpoints/. Give {instead}."
    )


@checkpoint_app.command("ls")
def checkpoint_ls(run: RunFolder, as_json: AsJson = False) -> None:
    """List a run's checkpoints, oldest first."""
    from unsee_dist.training.checkpoint.directory import CHECKPOINTS, folders, summaries

    _check_is_run(run)
    if as_json:
        typer.echo(json.dumps(list(summaries(run))))
        return
    if not folders(run / CHECKPOINTS):
        typer.echo(f"{run} has no checkpoint yet")
    for summary in summaries(run):
        typer.echo(
            "  ".join(
                _shown(value) if key == "name" else f"{key} {_shown(value)}" for key, value in summary.items()
            )
        )


def _shown(value: object) -> str:
    return str(round(value, 4) if isinstance(value, float) else value)


@checkpoint_app.command("verify")
def checkpoint_verify(run: RunFolder) -> None:
    """Read every byte of a run's checkpoints against their digests, and every number; name every damaged file."""
    from unsee_dist.training.checkpoint.directory import CHECKPOINTS, folders, verify

    _check_is_run(run)
    checkpoints = folders(run / CHECKPOINTS)
    if not checkpoints:
        typer.echo(f"{run} has no checkpoint yet")
    wrong = []
    for folder in checkpoints:
        try:
            verify(folder, values=True)
            typer.echo(f"{folder.name} is whole")
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n".join(wrong))


@checkpoint_app.command("rm")
def checkpoint_rm(
    run: RunFolder, names: Annotated[list[str], typer.Argument(help="Folders as `ls` shows them.")]
) -> None:
    """Remove checkpoints by name. One stays: a run without a checkpoint cannot continue."""
    from unsee_dist.files.owner import OWNER, owned
    from unsee_dist.training.checkpoint.directory import CHECKPOINTS, remove_by_name

    _check_is_run(run)
    with owned(run / OWNER, f"run {run}", "Stop it before its checkpoints are removed."):
        left = remove_by_name(run / CHECKPOINTS, names)
    typer.echo(f"{run}: removed {', '.join(dict.fromkeys(names))}; left: {', '.join(left)}")
