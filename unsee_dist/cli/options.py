"""Commands that take settings, and say how to write one that was given as an option."""

from __future__ import annotations

from typer._click.exceptions import NoSuchOption
from typer.core import TyperCommand

from unsee_dist.config.options import no_such_option, option_and_value
from unsee_dist.errors import UserError


class TakesSettings(TyperCommand):
    """A command with a configuration and SECTION.KEY=VALUE arguments."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # typer has no public types for them
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            name, value = option_and_value(error.option_name, given)
            others = (
                text for text in given if not text.startswith("-") and "=" not in text and text != value
            )
            raise UserError(no_such_option(ctx.command_path, name, value, next(others, "CONFIG"))) from error
