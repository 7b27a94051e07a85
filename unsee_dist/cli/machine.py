"""`unsee quickstart`, `unsee bench` and `unsee doctor`: commands about this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from unsee_dist.cli.options import AsJson
from unsee_dist.cli.training import Overrides
from unsee_dist.config import load
from unsee_dist.errors import UserError
from unsee_dist.log import say_waiting
from unsee_dist.terminal import clear_waiting, columns

app = typer.Typer()


@app.command()
def quickstart() -> None:
    """Train a small encoder on the docstrings of the installed packages, and evaluate it."""
    from unsee_dist.quickstart import main as run

    run()


@app.command()
def bench(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="Absent: the quickstart's preset, corpus and encoder, made if missing; unsee-vicreg where --only needs no corpus.",
        ),
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = Path("bench.json"),
    peer_unsee: Annotated[
        Path | None, typer.Option(help="A checkout of asparius/UNSEE, timed beside ours.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="training, masks, recovery, corpus, order, index (memory at ten billion sentences), sweep, scale (what a step sends "
            "on up to 1,024 ranks; with index) or gpu (BERT-base, under five minutes); again for another. order, index, scale and gpu need no "
            "corpus. Absent: all, gpu where there is one."
        ),
    ] = None,
) -> None:
    """Time training by its parts, reading a corpus, recovery and sweeps, beside others: tables and a JSON."""
    from unsee_dist import bench as benchmark

    for part in only or ():
        if part not in benchmark.PARTS:
            raise UserError(f"--only {part} is unknown. Write one of {', '.join(benchmark.PARTS)}.")

    needs_corpus = not only or not benchmark.WITHOUT_CORPUS.issuperset(only)
    preset, changed = config or ("quickstart" if needs_corpus else "unsee-vicreg"), list(overrides or ())
    if config is None and needs_corpus:
        from unsee_dist import quickstart as start

        corpus, encoder = start.HOME / "corpus", start.HOME / "encoder"
        start.make_corpus(corpus)
        start.make_encoder(encoder, corpus)
        changed += [f"data.shards={corpus}", f"model.encoder=./{encoder}"]
    load(preset, changed)
    benchmark.main(preset, changed, out, peer_unsee, only or None)


@app.command()
def doctor(
    folder: Annotated[
        Path,
        typer.Argument(metavar="[DIR]", help="Where runs will be written.", exists=True, file_okay=False),
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Look at this machine, or at every host of a job: PASS, WARN or FAIL, each with its remedy.

    Under srun, torchrun or deepspeed all ranks look and reduce a real tensor; rank 0 prints one table by host.
    Exit code 2 when something fails, 3 when a rank is lost meanwhile; 0 with warnings, which stop no script.
    """
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        say_waiting("loading torch, then looking at disk, Hub and MLflow", alone="RANK" not in os.environ)
    from unsee_dist.distributed.process_group import leave_world
    from unsee_dist.distributed.world import from_rank_0, wait_for_all
    from unsee_dist.doctor import examine, findings

    of_ranks, world = examine(folder)
    code = from_rank_0(world, findings.exit_code(of_ranks))
    clear_waiting()
    if world.rank == 0:
        if as_json:
            typer.echo(json.dumps(findings.as_json(of_ranks, world.size), indent=1))
        else:
            typer.echo(findings.as_text(of_ranks, world.size, columns(sys.stdout) or 100))
    wait_for_all(world)  # rank 0 has printed before a launcher sees the end of another
    leave_world()
    raise typer.Exit(code)
