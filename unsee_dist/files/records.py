"""Small JSON files that hold one value: a dataclass, with the version of its format beside it.

    {"format": 1, "host": "node-3", "pid": 4711}

A file of another format and a damaged one are refused by name: nothing is read as what it is not.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from unsee_dist.errors import UserError, file_error, writing
from unsee_dist.files.atomic import write_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Value = TypeVar("Value", bound=DataclassInstance)
else:
    Value = TypeVar("Value")

FORMAT = "format"
# Of a value's type, and of each dataclass inside of it: @with_config(STRICT).
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
BYTES = 1 << 28  # of the largest file: the ledger of 100,000 trials has a tenth of it


class RecordFile(Generic[Value]):
    """A kind of file: its name in a folder, the type of its value, its format's version, and what a person should do
    when it cannot be read. The type is checked strictly: unknown fields and numbers in quotes are damage."""

    def __init__(self, name: str, kind: type[Value], version: int, remedy: str) -> None:
        self.name, self.version, self.remedy = name, version, remedy
        self._type: TypeAdapter[Value] = TypeAdapter(with_config(STRICT)(kind))

    def write(self, folder: Path, value: Value) -> None:
        """Replace the file in `folder` in one move. UserError or TransientError: it cannot be written."""
        path = folder / self.name
        tree = {FORMAT: self.version} | asdict(value)
        text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)
        with writing(path):
            write_file(path, text + "\n")

    def read(self, folder: Path) -> Value | None:
        """The value in `folder`, None when there is no file. UserError: a damaged file, or one of another format."""
        path = folder / self.name
        try:
            with path.open("rb") as file:
                data = file.read(BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise file_error(f"{path} cannot be read ({error.strerror}).", error) from error
        return self._value(path, self._tree(path, data))

    def _tree(self, path: Path, data: bytes) -> dict[str, Any]:
        if len(data) > BYTES:
            raise UserError(
                f"{path} is larger than {BYTES >> 20} MiB: it is not a {self.name}. {self.remedy}"
            )
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._damaged(path, str(error)) from error
        if not isinstance(tree, dict):
            raise self._damaged(path, "it holds no object")
        version = tree.pop(FORMAT, None)
        if version != self.version:
            raise UserError(
                f"{path} has format {version}, and this version of unsee_dist reads format {self.version}. Use the "
                f"version that wrote it, or: {self.remedy}"
            )
        return tree

    def _value(self, path: Path, tree: dict[str, Any]) -> Value:
        try:
            return self._type.validate_json(json.dumps(tree), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"])) or "the object"
            raise self._damaged(path, f"{place}: {first['msg']}") from error

    def _damaged(self, path: Path, why: str) -> UserError:
        return UserError(f"{path} is damaged ({why}). {self.remedy}")
