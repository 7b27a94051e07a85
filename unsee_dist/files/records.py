"""Small JSON files that hold one value: a dataclass, with the version of its format and a digest beside it.

    {"format": 2, "host": "node-3", "pid": 4711, "digest": "..."}

A file of another format, a damaged one and an edited one are refused by name: nothing is read as what it is not.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from unsee_dist.errors import UserError, writing
from unsee_dist.files.atomic import write_file
from unsee_dist.files.trees import DIGEST, Tree, is_sealed, parse_json, read_within, sealed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Value = TypeVar("Value", bound=DataclassInstance)
else:
    Value = TypeVar("Value")

FORMAT = "format"
# Of a value's type, and of each dataclass inside of it: @with_config(STRICT).
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
BYTES = 1 << 26  # of the largest file: the ledger of 100,000 trials has less than half of it


class RecordFile(Generic[Value]):
    """A kind of file: its name in a folder, the type of its value, its format's version, and what a person should do
    when it cannot be read. The type is checked strictly: unknown fields and numbers in quotes are damage."""

    def __init__(self, name: str, kind: type[Value], version: int, remedy: str) -> None:
        self.name, self.version, self.remedy = name, version, remedy
        self._type: TypeAdapter[Value] = TypeAdapter(with_config(STRICT)(kind))

    def write(self, folder: Path, value: Value) -> None:
        """Replace the file in `folder` in one move. UserError or TransientError: it cannot be written."""
        path = folder / self.name
        tree = sealed({FORMAT: self.version} | asdict(value))
        text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)
        with writing(path):
            write_file(path, text + "\n")

    def read(self, folder: Path) -> Value | None:
        """The value in `folder`, None when there is no file. UserError: a damaged file, or one of another format."""
        path = folder / self.name
        try:
            data = read_within(path, BYTES, self.remedy)
        except FileNotFoundError:
            return None
        return self._value(path, self._tree(path, data))

    def _tree(self, path: Path, data: bytes) -> Tree:
        try:
            tree = parse_json(data)
        except ValueError as error:
            raise self._damaged(path, str(error)) from error
        if not isinstance(tree, dict):
            raise self._damaged(path, "it holds no object")
        version = tree.get(FORMAT)
        if version != self.version:
            raise UserError(
                f"{path} has format {str(version)[:40]}, and this version of unsee_dist reads format {self.version}. Use the "
                f"version that wrote it, or: {self.remedy}"
            )
        return tree

    def _value(self, path: Path, tree: Tree) -> Value:
        fields = {key: value for key, value in tree.items() if key not in (FORMAT, DIGEST)}
        try:
            value = self._type.validate_json(json.dumps(fields), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"])) or "the object"
            raise self._damaged(path, f"{place}: {first['msg']}") from error
        if not is_sealed(tree):
            raise self._damaged(path, "its values are not those that were written")
        return value

    def _damaged(self, path: Path, why: str) -> UserError:
        return UserError(f"{path} is damaged ({why}). {self.remedy}")
