"""YAML of unknown origin within bounds: an alias counts as all that it stands for, and nesting has an end.

Without them 400 bytes of aliases that stand for aliases are billions of values. Dates stay text, as a person wrote them.
"""

from __future__ import annotations

import yaml

BYTES = 1 << 20  # of a file; PyYAML reads about 100 kB a second
VALUES = 100_000  # of a file, each alias counted as its values
DEPTH = 40
DATE = "tag:yaml.org,2002:timestamp"


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader. yaml.YAMLError: the file is no YAML, or beyond the bounds."""

    # `2024-13-45` looks like a date, and making one of it ends in an error of datetime's
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values, self._depth = 0, 0
        self._sizes: dict[int, int] = {}  # values by the id of a node that is complete

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node and all below it."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            self._count(self._sizes.get(id(node)) or self._inside_itself(event), event)
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

    def _inside_itself(self, event: yaml.Event) -> int:  # noqa: ARG002
        """How much an alias counts that stands for what contains it. Nodes may; who enters them counts the depth."""
        return 1

    def _count(self, values: int, event: yaml.Event) -> None:
        self._values += values
        if self._values > VALUES:
            raise self._beyond(f"it stands for more than {VALUES:,} values", event)

    def _beyond(self, why: str, event: yaml.Event) -> yaml.MarkedYAMLError:
        mark = event.start_mark
        return yaml.MarkedYAMLError(problem=why, problem_mark=mark if isinstance(mark, yaml.Mark) else None)


class TreeLoader(BoundedLoader):
    """For values, of which none may contain itself."""

    def _inside_itself(self, event: yaml.Event) -> int:
        raise self._beyond("an alias stands for what contains it", event)


def compose(text: str) -> yaml.Node | None:
    """The tree of nodes, each with its place; None of an empty text. yaml.YAMLError: see above."""
    return yaml.compose(_short(text), Loader=BoundedLoader)


def load(text: str) -> object:
    """The values, without dates. yaml.YAMLError: see above."""
    try:
        return yaml.load(_short(text), Loader=TreeLoader)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # PyYAML's makers of values do not check what a tag claims: `!!int x`, `!!timestamp x`, `!!float {}`
        raise yaml.YAMLError(f"a value is not what its tag says ({error})") from error


def _short(text: str) -> str:
    if len(text) > BYTES:
        raise yaml.YAMLError(f"it is longer than {BYTES >> 20} MiB")
    return text
