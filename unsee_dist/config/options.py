"""An option that a command does not have was meant as a setting: the line says how to write it.

unsee train CONFIG --lr 1e-4          write train.lr=1e-4
unsee train --config CONFIG           write unsee train CONFIG
"""

from __future__ import annotations

from collections.abc import Sequence

from unsee_dist.config.load import LEGAL
from unsee_dist.config.spelling import closest_key

MEANT = "did you mean "


def option_and_value(name: str, arguments: Sequence[str]) -> tuple[str, str]:
    """The option as typed without its dashes, and its value: after an =, or the next argument."""
    for place, text in enumerate(arguments):
        option, equals, value = text.partition("=")
        if option == name:
            after = arguments[place + 1 : place + 2]
            following = after[0] if after and not after[0].startswith("-") else "VALUE"
            return name.lstrip("-"), value if equals else following
    return name.lstrip("-"), "VALUE"


def no_such_option(command: str, name: str, value: str, config: str) -> str:
    """The sentence about an option that there is not."""
    if name == "config":
        return f"{command} has no option --config. Write {command} {value}."
    key = name.replace("-", "_")
    meant = closest_key(key, LEGAL)
    there_is = f"{command} has no option --{name}: settings are written SECTION.KEY=VALUE"
    if key in LEGAL or meant.startswith(MEANT):
        key = key if key in LEGAL else meant.removeprefix(MEANT).removesuffix("?")
        if "section" not in key:
            return f"{there_is}. Write {command} {config} {key}={value}"
    return f"{there_is}, such as train.lr=1e-4. All of them: unsee config show {config}"
