"""`unsee`: the commands. Each imports what it needs when it runs, so that --help and config wait for nothing.

corpus.py     prepare, shards
training.py   train, config, checkpoint
sweep.py      sweep, report
machine.py    quickstart, bench, doctor
judge         evaluate, compare, export (unsee_dist/judge/commands.py)

A mistake of the user (ValueError, or a file the system refuses) is a sentence on stderr and exit code 2.
"""

from __future__ import annotations

import sys

import typer

from unsee_dist.cli import corpus, machine, sweep, training
from unsee_dist.config import ConfigError
from unsee_dist.judge import commands as judge

MISTAKE = 2

app = typer.Typer(
    help="Train sentence encoders without labels, exactly, on any number of ranks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (corpus.app, training.app, judge.app, sweep.app, machine.app):
    app.add_typer(commands)


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
