"""A planted bug: a function that raises what nobody foresaw, as a line of a module of the package would."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def planted(module: ModuleType, error: str = "KeyError('planted')") -> Callable[..., Any]:
    """A function of this module that raises the error, whatever it is called with."""
    space: dict[str, Any] = {}
    exec(f"def planted(*_, **__): raise {error}", vars(module), space)
    function: Callable[..., Any] = space["planted"]
    return function
