"""Types, bounds, defaults and meanings in words, as cells of Markdown tables."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from unsee_dist.config.kinds import shown
from unsee_dist.config.section import PathText

NAMES = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", NoneType: "absent"}
BOUNDS = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown. Cells are Markdown already; a | in one is escaped here."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


CODE = re.compile(
    r"(`[^`]*`|(?<![\w/.-])--[a-z][\w-]*|\b[A-Z]+(?:_[A-Z]+)+\b)"
)  # --option, ENVIRONMENT_VARIABLE


def text(words: str) -> str:
    """Plain words as Markdown that shows them as they are; options, variables and what is between backticks are code."""
    parts = CODE.split(" ".join(words.split()))
    plain = [re.sub(r"([\\*_\[\]<>#])", r"\\\1", part) for part in parts[::2]]
    code = [f"`{part.strip('`')}`" for part in parts[1::2]]
    return "".join(each for pair in zip(plain, [*code, ""], strict=True) for each in pair)


def comments(of: type) -> dict[str, str]:
    """The comment on the statement of each attribute, in the source of the class."""
    source = inspect.cleandoc("\n" + inspect.getsource(of))
    found = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    meanings = {}
    for statement in ast.parse(source).body[0].body:  # type: ignore[attr-defined]  # it is the class
        if isinstance(statement, ast.AnnAssign | ast.Assign):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            lines = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
            meanings[ast.unparse(target)] = " ".join(found[line] for line in lines if line in found)
    return meanings


def type_words(annotation: Any, bounds: Sequence[object] = ()) -> str:
    """A type with its bounds, in words: "whole number ≥ 1, or absent"."""
    if annotation == PathText:
        return "path or name"
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return type_words(
            inner, [each for one in extra for each in (one.metadata if isinstance(one, FieldInfo) else [one])]
        )
    if origin in (Union, UnionType):
        members = sorted(get_args(annotation), key=lambda member: member is NoneType)
        return ", or ".join(type_words(each, bounds) for each in members)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin is list:
        return "a list of them"
    limits = [
        f"{sign}\N{NO-BREAK SPACE}{_limit(getattr(each, kind.__name__.lower()))}"
        for each in bounds
        for kind, sign in BOUNDS.items()
        if isinstance(each, kind)
    ]
    return f"{NAMES[annotation]} {', '.join(limits)}".strip()


def _limit(limit: float) -> str:
    is_power = isinstance(limit, int) and limit > 1 << 20 and limit & (limit - 1) == 0
    return f"2^{int(limit).bit_length() - 1}" if is_power else f"{limit:g}"


def default_words(field: FieldInfo) -> str:
    if field.default is None:
        return "absent"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{shown(field.default)}`"


def settings(of: type[BaseModel], prefix: str = "", leave_out: Sequence[str] = ()) -> list[list[str]]:
    """A row for each setting of a section: key, type, default, meaning."""
    said = comments(of)
    return [
        [
            f"`{prefix}{name}`",
            type_words(field.annotation, field.metadata) if not _is_path(of, name) else "path or name",
            default_words(field),
            text(field.description or said.get(name, "")),
        ]
        for name, field in of.model_fields.items()
        if name not in leave_out and not isinstance(field.default, BaseModel)
    ]


def _is_path(of: type[BaseModel], name: str) -> bool:
    """PathText, which pydantic has taken apart."""
    return of.__annotations__.get(name, "").strip() == "PathText"
