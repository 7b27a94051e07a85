"""Pages of the reference, made from the package while the site is built: nothing in them is written by hand.

    <!-- generated: configuration -->         in a page is replaced by what configuration() returns

The meaning of a setting or an exit code is the comment on its line in the code; of an option, its help text; of a number
in metrics.jsonl, metrics/names.py.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from unsee_dist.config import kinds
from unsee_dist.config.section import PathText

MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)
NAMES = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", NoneType: "absent"}
BOUNDS = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown. Cells are Markdown already; a | in one is escaped here."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def text(words: str) -> str:
    """Plain words as Markdown that shows them as they are; what is between backticks stays code."""
    parts = re.split(r"(`[^`]*`)", " ".join(words.split()))
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_\[\]<>#])", r"\\\1", part) for part in parts
    )


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
        f"{sign} {_limit(getattr(each, kind.__name__.lower()))}"
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
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{kinds.shown(field.default)}`"


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


def configuration() -> str:
    """Every key of a run, by section, with what a second start may do to it."""
    from unsee_dist.config.objective import OBJECTIVE_SETTINGS
    from unsee_dist.config.sections import RunConfig

    header = ["key", "type", "default", "meaning", "a second start"]
    parts = [_section("top", "Top level", table(header, _with_kind(settings(RunConfig))))]
    for name, field in RunConfig.model_fields.items():
        if name != "objective" and isinstance(field.default, BaseModel):
            rows = _with_kind(settings(type(field.default), f"{name}."))
            parts.append(_section(name, f"`{name}`", table(header, rows)))
    names = ", ".join(f"`{name}`" for name in OBJECTIVE_SETTINGS)
    objective = [f"`objective.name` is one of {names}; absent, it is `vicreg`. Each has settings of its own."]
    for name, own in OBJECTIVE_SETTINGS.items():
        rows = settings(own, "objective.", leave_out=["name"])
        objective += [f"### `objective.name: {name}`", text(inspect.getdoc(own) or "")]
        objective += [table(header[:4], rows)] if rows else []
    return "\n\n".join([*parts, _section("objective", "`objective`", "\n\n".join(objective))])


def _section(anchor: str, title: str, body: str) -> str:
    return f"({anchor}-settings)=\n## {title}\n\n{body}"


def _with_kind(rows: list[list[str]]) -> list[list[str]]:
    words = {
        kinds.Kind.RESULT: "refused",
        kinds.Kind.CONTENT: "same content",
        kinds.Kind.CHANGE: "may change",
        kinds.Kind.GROW: "may grow",
    }
    return [[*row, words[kinds.kind_of(row[0].strip("`"))]] for row in rows]


def sweep() -> str:
    """The keys of a sweep's own section."""
    from unsee_dist.sweep.settings import SweepSettings

    return table(["key", "type", "default", "meaning"], settings(SweepSettings, "sweep."))


def presets() -> str:
    """The presets that are shipped, and the first line of each."""
    from unsee_dist.config.shipped import shipped

    files = sorted(shipped("configs").glob("*.yaml")) + sorted(shipped("configs").glob("sweeps/*.yaml"))
    first = {
        path: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip() for path in files
    }
    rows = [
        [f"`{path.stem}`", "sweep" if path.parent.name == "sweeps" else "run", text(line)]
        for path, line in first.items()
    ]
    return table(["name", "of a", "what it is"], rows)


def commands() -> str:
    """Every command, its arguments and options, as the command line itself describes them."""
    return "\n\n".join(_command(path, command) for path, command in all_commands())


def all_commands() -> Iterator[tuple[str, Any]]:
    """("unsee shards info", click's command) for every command."""
    from typer.main import get_command

    from unsee_dist.cli import app

    def below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield path, command
        for name, each in getattr(command, "commands", {}).items():
            yield from below(f"{path} {name}", each)

    yield from below("unsee", get_command(app))


def _command(path: str, command: Any) -> str:
    parameters = [each for each in command.params if each.name != "help"]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = [each for each in parameters if each.param_type_name == "option"]
    usage = " ".join(
        [path, *(_usage(each) for each in (*arguments, *(each for each in options if each.required)))]
    )
    parts = [
        f"## `{path}`",
        _paragraphs(command.help or ""),
        f"```text\n{usage}{' [OPTIONS]' if options else ''}\n```",
    ]
    rows = [[f"`{_usage(each)}`", "", text(each.help or "")] for each in arguments]
    rows += [[_option(each), _default(each), text(each.help or "")] for each in options]
    return "\n\n".join(
        [*parts, *([table(["argument or option", "default", "meaning"], rows)] if rows else [])]
    )


def _paragraphs(words: str) -> str:
    return "\n\n".join(text(part) for part in inspect.cleandoc(words).split("\n\n"))


def _usage(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{max(parameter.opts, key=len)} {name}" if parameter.param_type_name == "option" else name


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted(parameter.opts, key=len))
    return names if parameter.is_flag else f"{names} `{parameter.metavar or parameter.name.upper()}`"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    return "" if parameter.is_flag or parameter.default is None else f"`{parameter.default}`"


def metrics() -> str:
    """The names in metrics.jsonl."""
    from unsee_dist.metrics import names

    terms = [[f"`{name}`", text(f"a term of {of}, weighted")] for name, of in objective_terms().items()]
    training = [[f"`{name}`", text(meaning)] for name, meaning in names.TRAINING.items()]
    evaluation = [
        [f"`{name}`", text(meaning), f"`{names.NEEDS[name]}`" if name in names.NEEDS else ""]
        for name, meaning in names.EVALUATION.items()
    ]
    return "\n\n".join(
        [
            "## A training line",
            table(["name", "meaning"], [*training, *terms]),
            "## An evaluation line",
            table(["name", "meaning", "needs"], evaluation),
        ]
    )


def objective_terms() -> dict[str, str]:
    """Term -> the objectives that have it, by calling each once."""
    import torch

    from unsee_dist.distributed.reduce import Reduction
    from unsee_dist.objectives import OBJECTIVES

    owners: dict[str, list[str]] = {}
    for name, objective in OBJECTIVES.items():
        views = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
        for term in objective(4, Reduction())(*views).terms:
            owners.setdefault(term, []).append(f"`{name}`")
    return {term: " and ".join(of) for term, of in owners.items()}


def exit_codes() -> str:
    from unsee_dist.errors import ExitCode

    said = comments(ExitCode)
    rows = [[str(int(code)), f"`{code.name}`", text(said[code.name])] for code in ExitCode]
    return table(["code", "`ExitCode`", "meaning"], rows)


GENERATED: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "sweep": sweep,
    "presets": presets,
    "commands": commands,
    "metrics": metrics,
    "exit-codes": exit_codes,
}


def fill(page: str) -> str:
    """A page with every marker replaced. KeyError: there is no such part."""
    return MARKER.sub(lambda found: GENERATED[found[1]](), page)


def _source_read(app: Any, name: str, source: list[str]) -> None:  # noqa: ARG001  # Sphinx gives them
    source[0] = fill(source[0])


def _docstring(app: Any, what: str, name: str, of: object, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """The docstrings here are plain text with indented blocks: those become literal, unless they are examples to run."""
    lines[:] = literal_blocks(lines)


def literal_blocks(lines: Sequence[str]) -> list[str]:
    """Plain text as reStructuredText: an indented block is shown as it is, or run where it begins with >>>; elsewhere bars
    and stars are themselves."""
    made: list[str] = []
    block = ""  # the kind of the block that the line is in
    for line in lines:
        if line.strip() and not line.startswith("    "):
            block = ""
        elif line.strip() and not block:
            block = "example" if line.strip().startswith(">>>") else "literal"
            made += [""] if block == "example" else ["", "::", ""]
        made.append(line if block else re.sub(r"([|*])", r"\\\1", line))
    return [*made, ""]


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _source_read)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
