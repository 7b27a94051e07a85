"""Files and overrides as layers: flat `section.key` -> the value as typed, and its place.

The YAML is read as a tree of nodes: a node has its line and the text as typed (PyYAML would make `1e-4` a string and
010 an 8), and keys that are written twice are visible. pydantic converts text to numbers later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from unsee_dist.config import bounded_yaml
from unsee_dist.config.mistakes import Mistake
from unsee_dist.config.presets import find, presets
from unsee_dist.errors import UserError, is_transient

COMMAND_LINE = "command line"
NULL = "tag:yaml.org,2002:null"


class Typed(NamedTuple):
    """A value as typed (text, None for null, a list, or a mapping at a key that is no section), and its place."""

    value: object
    where: str


Layer = dict[str, Typed]


def file_layers(name: str, sections: frozenset[str], mistakes: list[Mistake]) -> tuple[Path, list[Layer]]:
    """The path of the file and its layers, the deepest `extends` first; mistakes are appended."""
    try:
        path = find(name, Path())
    except UserError as error:
        mistakes.append(Mistake(name, None, "", str(error), ""))
        return Path(name), []
    first, seen, layers = path, {path.resolve()}, [read(path, sections, mistakes)]
    while (extends := layers[0].pop("extends", None)) is not None:
        try:
            path = find(str(extends.value), path.parent)
        except UserError as error:
            mistakes.append(Mistake("extends", extends.value, extends.where, str(error), ""))
            break
        if path.resolve() in seen:
            mistakes.append(
                Mistake("extends", extends.value, extends.where, "the files extend each other", "")
            )
            break
        seen.add(path.resolve())
        layers.insert(0, read(path, sections, mistakes))
    return first, layers


def read(path: Path, sections: frozenset[str], mistakes: list[Mistake]) -> Layer:
    """One file as a layer, with `extends` as a key; an unreadable file is appended to mistakes."""
    shown = os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
    try:
        with path.open(encoding="utf-8") as file:
            root = bounded_yaml.compose(file.read(bounded_yaml.BYTES + 1))
    except (OSError, UnicodeDecodeError) as error:
        if is_transient(error):
            raise
        mistakes.append(Mistake(shown, None, "", f"cannot be read as text ({error})", ""))
        return {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        mistakes.append(Mistake(shown, None, f"{shown}:{line}", f"is not YAML: {error.problem}", ""))
        return {}
    except yaml.YAMLError as error:
        mistakes.append(Mistake(shown, None, "", f"is not YAML: {error}".replace("\n", " "), ""))
        return {}
    if root is None or root.tag == NULL:
        return {}
    if not isinstance(root, yaml.MappingNode):
        mistakes.append(Mistake(shown, None, f"{shown}:1", "has no keys", "write `section:` and its keys"))
        return {}
    return _flat(root, shown, sections, mistakes)


def override_layer(overrides: Sequence[str], mistakes: list[Mistake]) -> Layer:
    """`section.key=value` arguments as one layer; a key given twice takes its last value."""
    layer: Layer = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            mistakes.append(_no_setting(text))
            continue
        absent = value.strip() in ("", "null", "~")
        layer[key.strip()] = Typed(None if absent else value.strip(), COMMAND_LINE)
    return layer


def _no_setting(text: str) -> Mistake:
    if text in presets() or text.endswith((".yaml", ".yml")):
        why, instead = "is a second configuration", "write one; a file may say `extends: another.yaml`"
    else:
        why, instead = "is not a setting", "write section.key=value"
    return Mistake(text, None, COMMAND_LINE, why, instead)


def parse_value(text: str) -> object:
    """A value of the command line, read as in a file: {choice: [16, 32]} is a mapping. Text when it is not YAML."""
    try:
        root = bounded_yaml.compose(text)
    except yaml.YAMLError:
        return text
    return text if root is None else _value(root)


def _flat(root: yaml.MappingNode, shown: str, sections: frozenset[str], mistakes: list[Mistake]) -> Layer:
    """The leaves of a file. Only sections are entered: two levels, so an alias cannot loop."""
    layer: Layer = {}
    lines: dict[str, int] = {}
    for key, node, line in _items("", root, sections):
        if key in lines:
            why = f"is written twice, first in line {lines[key]}"
            mistakes.append(Mistake(key, _value(node), f"{shown}:{line}", why, "keep one"))
            continue
        lines[key] = line
        layer[key] = Typed(_value(node), f"{shown}:{line}")
    return layer


def _items(
    prefix: str, mapping: yaml.MappingNode, sections: frozenset[str]
) -> Iterator[tuple[str, yaml.Node, int]]:
    for key_node, node in mapping.value:
        key, line = prefix + str(_value(key_node)), key_node.start_mark.line + 1
        if key in sections and isinstance(node, yaml.MappingNode):
            yield from _items(key + ".", node, sections)
        elif not (key in sections and node.tag == NULL):  # an empty section has no keys
            yield key, node, line


def _value(node: yaml.Node, depth: int = 2) -> object:
    """The value of a node. Mappings are entered two levels deep, for the `when` of a sweep; aliases cannot loop."""
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == NULL else node.value
    if isinstance(node, yaml.SequenceNode):
        return [part.value if isinstance(part, yaml.ScalarNode) else "..." for part in node.value]
    assert isinstance(node, yaml.MappingNode)
    return {str(_value(key, 0)): _value(part, depth - 1) for key, part in node.value} if depth else "{...}"
