"""Commands that take settings, and say how to write one that was given as an option.

The configuration may be written as launchers have it: `unsee train --config X key=value` is `unsee train X key=value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from typer._click.exceptions import NoSuchOption
from typer.core import TyperCommand

from unsee_dist.config.options import no_such_option, option_and_value
from unsee_dist.errors import UserError

CONFIG = "--config"


def config_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the value of --config as the first of them. As they are where it has no value or stands twice."""
    places = [place for place, text in enumerate(arguments) if text.partition("=")[0] == CONFIG]
    if len(places) != 1:
        return list(arguments)
    before, (option, *after) = arguments[: places[0]], arguments[places[0] :]
    _, equals, value = option.partition("=")
    if not equals and after:
        value, *after = after
    return [value, *before, *after] if value else list(arguments)


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def presets_that_begin(incomplete: str) -> list[str]:
    """For the shell's completion of CONFIG; the shell itself completes files."""
    from unsee_dist.config import presets

    return [name for name in presets() if name.startswith(incomplete)]


def settings_that_begin(incomplete: str) -> list[str]:
    """For the shell's completion of SECTION.KEY=VALUE: keys, each with its equals sign."""
    from unsee_dist.config.kinds import flat
    from unsee_dist.config.sections import RunConfig

    return [f"{key}=" for key in flat(RunConfig()) if key.startswith(incomplete)]


class TakesSettings(TyperCommand):
    """A command with a configuration and SECTION.KEY=VALUE arguments."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # typer has no public types for them
        given = list(args) if self.params[0].name != "config" else config_first(args)
        args = list(given)
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            name, value = option_and_value(error.option_name, given)
            others = (
                text for text in given if not text.startswith("-") and "=" not in text and text != value
            )
            raise UserError(no_such_option(ctx.command_path, name, value, next(others, "CONFIG"))) from error
