"""YAML of unknown origin within bounds: an alias counts as all that it stands for, and nesting has an end.

Without them 400 bytes of aliases that stand for aliases are billions of values. Nodes are read and no values are made of
them: PyYAML's makers of values end in errors of their own at `!!int x` or 2024-13-45.
"""

from __future__ import annotations

import yaml

BYTES = 1 << 20  # of a file; PyYAML reads about 100 kB a second
VALUES = 100_000  # of a file, each alias counted as its values
DEPTH = 40


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's composer. yaml.YAMLError: the file is no YAML, or beyond the bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values, self._depth = 0, 0
        self._sizes: dict[int, int] = {}  # values by the id of a node that is complete

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node and all below it."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs give it no type
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            # one that stands for what contains it counts as one: who enters nodes counts the depth
            self._count(self._sizes.get(id(node), 1), event)
            return node
        before = self._values
        self._depth += 1
        if self._depth > DEPTH:
            raise self._beyond(f"it is nested more than {DEPTH} deep", event)
        self._count(1, event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._values - before
        return node

    def _count(self, values: int, event: yaml.Event) -> None:
        self._values += values
        if self._values > VALUES:
            raise self._beyond(f"it stands for more than {VALUES:,} values", event)

    def _beyond(self, why: str, event: yaml.Event) -> yaml.MarkedYAMLError:
        mark = event.start_mark
        return yaml.MarkedYAMLError(problem=why, problem_mark=mark if isinstance(mark, yaml.Mark) else None)


def compose(text: str) -> yaml.Node | None:
    """The tree of nodes, each with its place; None of an empty text. yaml.YAMLError: see above."""
    if len(text) > BYTES:
        raise yaml.YAMLError(f"it is longer than {BYTES >> 20} MiB")
    return yaml.compose(text, Loader=BoundedLoader)
