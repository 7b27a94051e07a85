"""`unsee evaluate | compare | export`. No torch and no mteb before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Given = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A run, a checkpoint, an exported folder, owner/name, or tfidf."),
]


@app.command()
def evaluate(
    model: Given,
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
    prefetch: Annotated[bool, typer.Option("--prefetch", help="Only load data, where a network is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge MODEL on MTEB tasks, or on files of your own. Exit code 1 when its embeddings are unusable.

    What was judged before is not judged again, so the same command without --shard prints all shards together.
    """
    from unsee_dist.evaluation import evaluate as run

    if prefetch:
        run.prefetch(model, tier or ())
    elif not run.evaluate(run.EvaluationRequest(model, tier or (), tasks or (), shard, engine), as_json):
        raise typer.Exit(1)


@app.command()
def compare(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Two or more; the first is the base.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="NAME", help="Write NAME.md, NAME.json and NAME.png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put what `unsee evaluate` found side by side. Runs that differ only in their seed become one row."""
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
    from unsee_dist.publish.export import export as run

    run(model, out, onnx, push)
    typer.echo(f"{out}: SentenceTransformer('{out}')")
