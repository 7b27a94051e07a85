"""Commands that take settings, and say how to write one that was given as an option.

The configuration may be written as launchers have it: `unsee train --config X key=value` is `unsee train X key=value`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
