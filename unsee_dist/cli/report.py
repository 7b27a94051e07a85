"""`unsee runs` and `unsee report`: what is there, and one page of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee_dist.cli.options import AsJson
from unsee_dist.errors import UserError
from unsee_dist.log import LOG, waiting

app = typer.Typer()


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where runs or sweeps are.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs below DIR (runs/), the newest first: state, step, best score, gain over before, when, where.

    stopped: the same command continues it. silent: its process has not answered for two minutes.
    """
    from unsee_dist.report.listing import show

    show(folder, as_json)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="A run, several to compare, or a sweep's folder.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The page; by default report.html in the run's folder, of several runs here."
        ),
    ] = None,
) -> None:
    """Write one HTML page of a run, of several side by side, or of a sweep: what came out, and why.

    The page needs no network. Of a sweep also its table, plots, and the best settings as a preset, in DIR/report.
    """
    from unsee_dist.sweep.driver import SWEEP

    sweeps = [folder for folder in folders if (folder / SWEEP).is_file()]
    if sweeps and len(folders) > 1:
        raise UserError(
            f"{sweeps[0]} is a sweep, and a sweep has a page of its own. Give it alone, or give its trials."
        )
    if sweeps:
        from unsee_dist.sweep import ledger
        from unsee_dist.sweep.load import load_sweep
        from unsee_dist.sweep.report import write_report
        from unsee_dist.sweep.status import sweep_file

        if out is not None:
            raise UserError(
                f"--out {out} is not used with a sweep, whose report is in {sweeps[0]}/report. Leave it out."
            )
        write_report(load_sweep(sweep_file(sweeps[0])), ledger.read(sweeps[0]))
        return
    with waiting("report: reading the runs"):
        from unsee_dist.report.of_runs import report_runs

        page = report_runs(folders, out)
    LOG.info(f"report: {page}")
