"""`unsee`: the commands. Each imports what it needs when it runs, so that --help and config wait for nothing.

corpus.py     prepare, shards
training.py   train, config, checkpoint
sweep.py      sweep, report
machine.py    quickstart, bench, doctor
judge         evaluate, compare, export (unsee_dist/cli/evaluation.py)

A mistake of the user is a sentence on stderr and exit code 2; see errors.py for the other kinds and codes.
"""

from __future__ import annotations

import sys

import typer

from unsee_dist.cli import corpus, machine, sweep, training
from unsee_dist.cli import evaluation as judge
from unsee_dist.config import ConfigError
from unsee_dist.errors import report

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
    """The console script: every error ends as its kind says (errors.py)."""
    try:
        app(prog_name="unsee")
    except ConfigError as error:
        sys.exit(report(error))
    except Exception as error:
        sys.exit(report(error, "unsee"))


if __name__ == "__main__":
    main()
