"""`unsee`: the commands. Each imports what it needs when it runs, so that --help and config wait for nothing.

corpus.py     prepare, shards
training.py   train, config, checkpoint
evaluation.py evaluate, compare, export
sweep.py      sweep
reproduce.py  reproduce
report.py     runs, report
project.py    init
machine.py    quickstart, bench, doctor

A mistake of the user is a sentence on stderr and exit code 2; see errors.py for the other kinds and codes.
"""

from __future__ import annotations

import re
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unsee_dist import __version__
from unsee_dist.cli import corpus, evaluation, machine, project, report, reproduce, sweep, training
from unsee_dist.cli.help import arrange, in_order
from unsee_dist.cli.usage import check_once, check_shell, in_one_sentence
from unsee_dist.config import ConfigError
from unsee_dist.config.section import home_folder
from unsee_dist.errors import UserError
from unsee_dist.errors import report as report_error
from unsee_dist.log import be_quiet


class CommandGroup(TyperGroup):
    """All commands. `--out=~/x` is in the home folder (no shell expands a ~ after an equals sign), and a wrong call
    gets one sentence."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        def expanded(match: re.Match[str]) -> str:
            try:
                return (match[1] or "") + home_folder(match[2])
            except UserError as error:
                raise UserError(f"{error}.") from error

        args = _anywhere(args)
        args = [re.sub(r"^(--?[\w-]+=)?(~[\w.-]*)(?=/|$)", expanded, each) for each in args]
        check_once(self, args)
        check_shell(args)
        with in_one_sentence(info_name or "unsee"):
            return super().make_context(info_name, args, *more, **extra)

    def list_commands(self, ctx: Any) -> list[str]:
        return in_order(super().list_commands(ctx))

    def invoke(self, ctx: Any) -> Any:
        with in_one_sentence(" ".join(filter(None, (ctx.command_path, *ctx._protected_args[:1])))):
            return super().invoke(ctx)


def _anywhere(args: list[str]) -> list[str]:
    """-q may stand anywhere; deepspeed and older torchruns put a --local_rank before all, which the environment has, too."""
    given = [text for text in args if not re.match(r"--local[-_]rank=\d+$", text)]
    end = given.index("--") if "--" in given else len(given)
    quiet = [text for text in given[:end] if text in QUIET]
    return quiet[:1] + [text for text in given[:end] if text not in QUIET] + given[end:]


QUIET = ("-q", "--quiet")
app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (
    corpus.app,
    training.app,
    evaluation.app,
    report.app,
    sweep.app,
    reproduce.app,
    project.app,
    machine.app,
):
    app.add_typer(commands)
arrange(
    (corpus.app, training.app, evaluation.app, report.app, sweep.app, reproduce.app, project.app, machine.app)
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unsee_dist {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # noqa: ARG001  # its callback prints it
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option(*QUIET, help="Print results, warnings and errors only; anywhere in a command.")
    ] = False,
) -> None:
    """Train sentence encoders without labels, exactly, on any number of ranks.

    NO_COLOR=1 prints without colours. Exit codes: 0 done, 2 a mistake, 75 stopped (the same command continues).
    """
    if quiet:
        be_quiet()


def main() -> None:
    """The console script. Errors and exit codes: see errors.py."""
    try:
        app(prog_name="unsee")
    except SystemExit as ending:
        # typer takes an EOFError of ours, such as a truncated file, for the end of the keyboard's input: "Aborted."
        aborted = ending.__context__
        if isinstance(aborted, BrokenPipeError):  # `| head`: whoever read the output has what it wanted
            sys.exit(128 + signal.SIGPIPE)
        if aborted is not None and isinstance(aborted.__cause__, EOFError):
            sys.exit(report_error(aborted.__cause__, "unsee"))
        raise
    except ConfigError as error:  # its first line is the file
        sys.exit(report_error(error))
    except Exception as error:
        sys.exit(report_error(error, "unsee"))
