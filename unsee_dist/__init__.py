"""unsee_dist: train sentence encoders without labels, exactly, on any number of ranks.

    from unsee_dist import load_config, load_run, prepare, train

    prepare("tickets.jsonl", "data/mine", field="body", dev=500)
    run = train(load_config("unsee-vicreg", ["data.shards=data/mine", "evaluate.retrieval=data/mine/dev.tsv"]))
    run.scores()                                    # a table: before, best, last
    load_run("runs/mine").encode(["A sentence."])   # (1, D)

Names are imported on first use: `import unsee_dist` waits for nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unsee_dist.api import Run, evaluate, load_config, load_run, prepare, train
    from unsee_dist.errors import UserError
    from unsee_dist.supervision.signals import Stopped

__version__: str
__all__ = ["Run", "Stopped", "UserError", "evaluate", "load_config", "load_run", "prepare", "train"]

_HOME = dict.fromkeys(("Run", "evaluate", "load_config", "load_run", "prepare", "train"), "api")
_HOME |= {"UserError": "errors", "Stopped": "supervision.signals"}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _version() -> str:
    """pyproject.toml's, as it was installed. importlib.metadata takes longer than all else here."""
    from importlib import metadata

    try:
        return metadata.version("unsee_dist")
    except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH that was never installed
        return "0+unknown"
