"""`unsee reproduce`: an experiment of the paper, or of ours, by one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee_dist.cli.options import TakesSettings
from unsee_dist.cli.training import Overrides

app = typer.Typer()


@app.command(cls=TakesSettings)
def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="objectives, target, projector, spectrum, scale, peers, start, views, weights or vision.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of its runs and its page.")],
    overrides: Overrides = None,
    small: Annotated[
        bool, typer.Option("--small", help="Some hundred steps in fp32, for a CPU of two cores.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Seeds of each arm. Absent: the experiment's, 3.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this arm; repeatable. Absent: all."),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Of start: another encoder to begin with; repeatable."),
    ] = None,
    tasks: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of your own task files; repeatable.")
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="sts, fast, v2, v1 or a task of mteb; repeatable."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="ray", help="Side by side on a Ray cluster: RAY_ADDRESS, or this machine."),
    ] = None,
) -> None:
    """Repeat an experiment: train its arms under several seeds, score them, and say what the numbers show and what not.

    model.encoder and data.shards are yours. The same command continues what was stopped or killed; a run that is complete is
    not run again. Exit codes: 0 done, 2 a mistake, 75 stopped.
    """
    from unsee_dist.evaluation.tasks import EvaluationRequest
    from unsee_dist.reproduce.command import Request, reproduce
    from unsee_dist.reproduce.starts import parse_starts

    wanted = EvaluationRequest("", tier or (), tasks or (), engine=engine)
    starts = parse_starts(start or ())
    raise typer.Exit(reproduce(Request(name, overrides or (), out, small, seeds, arm or (), starts, wanted)))
