"""Each exception of the package goes through pickle: a process, a Ray task and a rank send theirs to another one."""

from __future__ import annotations

import ast
import importlib
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import unsee_dist
from unsee_dist.bench.launch import ProcessFailed
from unsee_dist.config.mistakes import ConfigError, Mistake
from unsee_dist.config.sections import Conflict, Conflicts
from unsee_dist.errors import ExitCode, ProcessEnded

ARGUMENTS: dict[str, tuple[object, ...]] = {
    ConfigError.__name__: (
        "mine.yaml",
        [Mistake("train.batch", 0, "mine.yaml:3", "is less than 1", "write 1")],
    ),
    Conflicts.__name__: ([Conflict("train.steps", ("train.epochs",), "is absent", "write it")],),
    ProcessEnded.__name__: ("a case ended", ExitCode.BUG),
    ProcessFailed.__name__: ("a case failed", "exit code 1", "lines"),
    "_Wrong": ("must say how it varies", "write {choice: [..]}"),
}
ROOT = Path(unsee_dist.__file__).parent


def _modules() -> Iterator[str]:
    """Those with a class that is derived from something that is called an error."""
    for path in sorted(ROOT.rglob("*.py")):
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        bases = [ast.unparse(base) for node in classes for base in node.bases]
        if any(base.endswith(("Error", "Exception")) for base in bases):
            yield ".".join(("unsee_dist", *path.relative_to(ROOT).with_suffix("").parts))


def _derived(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for each in kind.__subclasses__():
        yield each
        yield from _derived(each)


def test_every_exception_is_the_same_behind_pickle() -> None:
    for module in _modules():
        importlib.import_module(module.removesuffix(".__init__"))
    kinds = {each for each in _derived(BaseException) if each.__module__.startswith("unsee_dist")}
    assert len(kinds) > 15
    for kind in kinds:
        error = kind(*ARGUMENTS.get(kind.__name__, ("a sentence",)))
        read = pickle.loads(pickle.dumps(error))
        assert type(read) is kind
        assert str(read) == str(error), kind
        assert vars(read) == vars(error), kind


def test_an_exception_that_does_not_come_back_is_found() -> None:
    class Lost(ValueError):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} {second}")

    constructor, arguments = Lost("a", "b").__reduce__()[:2]
    with pytest.raises(TypeError, match="missing"):
        constructor(*arguments)
