"""The base of all sections of settings."""

from __future__ import annotations

import os
import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from unsee_dist.errors import UserError


def at_home(text: str) -> str:
    """`~/` and `~name/` at the start of a path as that home folder; the shell does so only for a word that begins with ~.
    Also of each path in a list such as "3 ~/wiki, 1 ~/mine". UserError: a NUL, which no path has; a user who is not here."""
    if "\0" in text:
        raise UserError("a path has no NUL character (\\0). Delete it")
    return re.sub(r"(^|[\s,])(~[\w.-]*)(?=/)", lambda match: match[1] + home_folder(match[2]), text)


def home_folder(name: str) -> str:
    """The folder of ~ or ~name. UserError: there is no such user, and a folder of that name would be made here."""
    folder = os.path.expanduser(name)
    if folder == name:
        raise UserError(
            f"{name}/ is the home folder of a user who is not known here. Write ./{name}/ for a folder of that name"
        )
    return folder


PathText = Annotated[str, Field(min_length=1), AfterValidator(at_home)]  # a path, or a name that may be one


class Section(BaseModel):
    """Settings that are frozen and checked: no unknown keys, no NaN or infinity."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True
    )
