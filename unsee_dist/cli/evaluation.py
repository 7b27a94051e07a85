"""`unsee evaluate | compare | export`. No torch and no mteb before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee_dist.cli.options import AsJson
from unsee_dist.errors import ExitCode, UserError
from unsee_dist.log import waiting

app = typer.Typer()
LIBRARIES = "loading torch and sentence-transformers"

ModelName = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A run, a checkpoint, an exported folder, owner/name, or tfidf."),
]


@app.command()
def evaluate(
    model: ModelName,
    tier: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="sts, fast, v2, v1 or a task of mteb; repeatable."),
    ] = None,
    tasks: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of your own task files; repeatable.")
    ] = None,
    shard: Annotated[str | None, typer.Option(metavar="K/N", help="Only the k-th of n parts.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="ray", help="Side by side on a Ray cluster: RAY_ADDRESS, or this machine."),
    ] = None,
    prefetch: Annotated[
        bool, typer.Option("--prefetch", help="Only load the data, where there is a network.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate MODEL on MTEB tasks, or on files of your own. Exit code 4 when its embeddings are unusable.

    A score that is on disk is not measured again, so the same command without --shard prints the scores of all shards.
    """
    with waiting(LIBRARIES):
        from unsee_dist.evaluation import evaluate as run
        from unsee_dist.evaluation.tasks import EvaluationRequest

    if prefetch:
        others = {"--tasks": tasks, "--shard": shard, "--engine": engine, "--json": as_json}
        if unused := [name for name, value in others.items() if value]:
            raise UserError(f"--prefetch only loads data: {', '.join(unused)} is not used. Leave it out.")
        run.prefetch(model, tier or ())
    elif not run.evaluate(EvaluationRequest(model, tier or (), tasks or (), shard, engine), as_json):
        raise typer.Exit(ExitCode.UNUSABLE)


@app.command()
def compare(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Two or more; the first is the base.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="NAME", help="Write NAME.md, NAME.json and NAME.png.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the scores of `unsee evaluate` side by side. Runs that differ only in their seed become one row."""
    with waiting(LIBRARIES):
        from unsee_dist.evaluation.compare import compare as run

    run(models, out, as_json)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="RUN", help="A run, one of its checkpoints, or its best/.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Also model.onnx, pooling inside.")] = False,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Upload to the Hub.")] = None,
) -> None:
    """Write a run's encoder as a folder that sentence-transformers loads, with a model card filled from the run."""
    with waiting(f"export: reading {model}"):
        from unsee_dist.evaluation.models import open_model
        from unsee_dist.evaluation.score_table import warnings
        from unsee_dist.evaluation.scores import read_scores
        from unsee_dist.publish import export as publish

        publish.check(model, out)
        opened = open_model(model)
        scores = list(read_scores(opened.home).values())
        publish.export(model, opened, publish.Evaluation(scores, warnings(scores)), out, onnx)
    if push:
        publish.push(out, push)
    typer.echo(f"{out}: SentenceTransformer('{out}')")
