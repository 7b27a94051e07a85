"""Pages made from the package, and from what it measured, while the site is built: nothing in them is written by hand.

    <!-- generated: configuration --> ...     in a page is replaced by what configuration() returns, with the words after it, which
                                              are for readers of the file
    NAME.ipynb                                a notebook becomes a page. (myst-nb would bring Jupyter, of which nothing else is used.)

The meaning of a setting or an exit code is the comment on its line in the code; of an option, its help text; of a number
in metrics.jsonl, metrics/names.py.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from evidence_page import evidence
from pydantic import BaseModel
from wording import comments, settings, table, text

from unsee_dist.config import kinds

MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->.*$", re.MULTILINE)


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
    "evidence": evidence,
}


def fill(page: str) -> str:
    """A page with every marker replaced. KeyError: there is no such part."""
    return MARKER.sub(lambda found: GENERATED[found[1]](), page)


def notebook(text: str) -> str:
    """A notebook as a page: Markdown cells as they are, code and what it printed as blocks. No kernel is needed for that."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = [_printed(output) for output in cell.get("outputs", ())]
        parts += [f"```text\n{each}\n```" for each in printed if each]
    return "\n\n".join(parts)


def _printed(output: dict[str, Any]) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", ())).rstrip("\n")


def _source_read(app: Any, name: str, source: list[str]) -> None:
    if app.env.doc2path(name).suffix == ".ipynb":
        source[0] = notebook(source[0])
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
    app.add_source_suffix(".ipynb", "markdown")
    app.connect("source-read", _source_read)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
