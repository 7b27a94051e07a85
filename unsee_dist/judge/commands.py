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
    prefetch: Annotated[bool, typer.Option("--prefetch", help="Only load data, where a network is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge MODEL on MTEB tasks, or on files of your own. Exit code 1 when its embeddings are unusable.

    What was judged before is not judged again, so the same command without --shard prints all shards together.
    """
    from unsee_dist.judge import evaluate as run

    if prefetch:
        run.prefetch(model, tier or ())
    elif not run.evaluate(model, tier or (), tasks or (), shard, as_json):
        raise typer.Exit(1)
