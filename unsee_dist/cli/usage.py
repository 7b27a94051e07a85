"""Mistakes in how a command is called, in one sentence each: what is wrong, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from typer._click.exceptions import (
    BadOptionUsage,
    BadParameter,
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
    UsageError,
)

from unsee_dist.config.load import plain_reason
from unsee_dist.errors import UserError

# Where to look for what an argument may be.
LISTED = {"CONFIG": "unsee config ls lists presets"}
COMPLETION = {"--show-completion", "--install-completion"}


@contextmanager
def in_one_sentence(command: str) -> Iterator[None]:
    """Raise a UsageError of typer as a UserError. command: of an error that does not say its own."""
    try:
        yield
    except NoArgsIsHelpError:  # it is the help, and no mistake
        raise
    except UsageError as error:
        path = error.ctx.command_path if error.ctx else command
        what = _what(error, path)
        raise UserError(f"{what}{'' if what.endswith('?') else '.'} {_instead(error, path)}") from error


def check_once(command: Any, args: Sequence[str]) -> None:
    """UserError: an option that takes one value is given twice with two, of which the parser would take the last."""
    rest = list(args)
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    single = {
        name: param
        for param in getattr(command, "params", ())
        if param.param_type_name == "option" and not param.is_flag and not param.multiple
        for name in param.opts
    }
    given: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            return
        if name not in single:
            continue
        option = _name(single[name])
        value = value if equals else next(words, "")
        if given.setdefault(option, value) != value:
            raise UserError(f"{option} is given twice: {given[option]} and {value}. Write one of them.")


def check_shell(args: Sequence[str]) -> None:
    """UserError: completion is asked for, and typer sees no shell around that it has one for."""
    if wanted := COMPLETION.intersection(args):
        from typer._completion_shared import Shells, _get_shell_name

        name, known = _get_shell_name(), [shell.value for shell in Shells]
        if name not in known:
            why = f"{name} is none of them" if name else "no shell was seen around this command"
            raise UserError(
                f"{wanted.pop()} is for {', '.join(known)}, and {why}. Write it in one of these, at its prompt."
            )


def _what(error: UsageError, path: str) -> str:
    """What is wrong, without a full stop."""
    if isinstance(error, MissingParameter):
        return f"{path} needs {_written(error.param).removesuffix('...')}"
    if isinstance(error, BadParameter):
        return _bad_value(error)
    if isinstance(error, NoSuchOption):
        meant = " or ".join(error.possibilities or ())
        return f"{path} has no option {error.option_name}" + (f": did you mean {meant}?" if meant else "")
    if isinstance(error, BadOptionUsage):
        none = "does not take" in error.message
        return f"{error.option_name} {'takes no value' if none else 'needs a value after it'}"
    if extra := re.search(r"unexpected extra argument\(?s?\)? \((.*)\)$", error.message):
        return f"{path} does not take {extra[1]}"
    if command := re.match(r"No such command '(.*?)'\.(?: Did you mean '?(.*?)'?\?)?", error.message):
        meant = f": did you mean {command[2]}?" if command[2] else ""
        return f"{path} has no command {command[1]}{meant}"
    return error.format_message().rstrip(".")


def _instead(error: UsageError, path: str) -> str:
    """A call that is right; of a wrong value or name, where all of them are explained."""
    if isinstance(error, MissingParameter):
        more = LISTED.get(_name(error.param), f"{path} --help says more")
        return f"Write {_call(error, path)}; {more}."
    if "unexpected extra" in error.message:
        return f"Write {_call(error, path)}; {path} --help says more."
    if isinstance(error, BadParameter) and getattr(error.param, "param_type_name", "") == "argument":
        help_text = str(getattr(error.param, "help", ""))
        return f"Give {help_text[:1].lower()}{help_text[1:]}"
    return f"What it takes: {path} --help"


def _bad_value(error: BadParameter) -> str:
    name = _name(error.param).removesuffix("...") if error.param is not None else "a value"
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        detail = cause.errors()[0]
        return f"{name} = {detail['input']} {plain_reason(detail['type'], detail['msg'])}"
    if path := re.fullmatch(r"\w+ (['\"])(.*)\1 (.*?)\.?", error.message):
        return f"{name} = {path[2]} {path[3]}"
    return f"{name}: {error.message.rstrip('.')}"


def _call(error: UsageError, path: str) -> str:
    """The command with all that it needs."""
    given = error.ctx.command.params if error.ctx else []
    needed = [_written(each) for each in given if each.required]
    return " ".join([path, *needed])


def _name(param: Any) -> str:
    """Of an option as it is typed, of an argument as the help shows it."""
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return str(param.metavar or param.name.upper()).strip("[].")


def _written(param: Any) -> str:
    """As it is written in a call: --out DIR, CONFIG, NAMES..."""
    name = _name(param)
    if param.param_type_name == "option":
        return name if param.is_flag else f"{name} {param.metavar or param.name.upper()}"
    return f"{name}..." if param.nargs == -1 and not name.endswith("...") else name
