"""`unsee sweep`: many runs of one configuration. Their results: report.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee_dist.cli.options import TakesSettings
from unsee_dist.cli.training import Overrides
from unsee_dist.errors import UserError
from unsee_dist.log import LOG

app = typer.Typer()


@app.command(cls=TakesSettings)
def sweep(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A YAML file, or a name in configs/sweeps.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue the sweep in this folder instead. Only your own: Ray reads its state as code.",
            metavar="DIR",
        ),
    ] = None,
    status: Annotated[
        Path | None, typer.Option(help="Print the trials of the sweep in this folder.", metavar="DIR")
    ] = None,
    stop: Annotated[
        Path | None, typer.Option(help="Stop the sweep in this folder; --resume continues it.", metavar="DIR")
    ] = None,
    confirm: Annotated[
        int, typer.Option(help="Then train the best and the base on so many seeds, and compare.", min=0)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="With --status: print JSON.")] = False,
) -> None:
    """Search for the settings of a run that give the best encoder, with Ray. The same command again continues.

    Exit codes: 0 complete, 2 a mistake, 75 stopped (the same command continues); when a trial failed: 1 for a bug,
    74 for a passing fault, 3 for processes that died again and again.
    """
    given = [name for name, value in _given(sweep, resume, status, stop).items() if value is not None]
    if len(given) != 1:
        raise UserError(
            f"{' and '.join(given) or 'nothing'} given: write one of SWEEP, --resume DIR, --status DIR, --stop DIR."
        )
    if confirm and (status or stop):
        raise UserError(f"--confirm {confirm} is not used with {given[0]}. Leave it out.")
    if as_json and status is None:
        raise UserError("--json needs --status DIR: a search itself prints lines.")
    from unsee_dist.sweep import status as sweep_status

    if status is not None:
        sweep_status.show(status, as_json)
    elif stop is not None:
        sweep_status.stop(stop)
    else:
        from unsee_dist.sweep.load import load_sweep
        from unsee_dist.sweep.search import run

        path = str(sweep) if resume is None else sweep_status.sweep_file(resume)
        if resume is not None:
            LOG.warning(
                f"{resume}: Ray's state in it is pickled, which is code. Continue only a sweep that is your own."
            )
        raise typer.Exit(run(load_sweep(path, overrides or ()), confirm))


def _given(
    sweep: str | None, resume: Path | None, status: Path | None, stop: Path | None
) -> dict[str, object]:
    return {"SWEEP": sweep, "--resume": resume, "--status": status, "--stop": stop}
