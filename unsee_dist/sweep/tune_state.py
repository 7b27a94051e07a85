"""What Ray Tune keeps of a search in <sweep.dir>/tune, looked at before Tune reads it: of a torn file it says nothing that helps.

    tuner.pkl                    how to search, written once
    experiment_state-TIME.json   every trial and its state, rewritten every two seconds, a file for each start
    search_gen_state-TIME.json,  what was drawn: pickles, whatever the name says
    basic-variant-state-..., searcher-state-..., callback-states-...

Files of single trials below it are not read when a search goes on.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Json, ValidationError

from unsee_dist.errors import UserError, file_error
from unsee_dist.files.trees import open_regular
from unsee_dist.sweep.trial import TRIALS

TUNER, EXPERIMENT = "tuner.pkl", "experiment_state-*.json"
DRAWN = ("search_gen_state-*.json", "basic-variant-state-*.json")  # either, by the kind of search
SEARCHER = "searcher-state-*.pkl"
PICKLES = (*DRAWN, SEARCHER, "callback-states-*.pkl")


class _State(BaseModel):
    """What of an experiment's state Tune cannot do without."""

    runner_data: dict[str, Any]
    trial_data: list[tuple[Json[dict[str, Any]], Json[dict[str, Any]]]]


def is_there(tune: Path, begun: bool) -> bool:
    """Whether Tune has a search to go on with. begun: a trial has ended in it. UserError: it had, and a file is torn or gone."""
    newest = _newest(tune, EXPERIMENT)
    if newest is None and not begun:  # stopped in its first seconds
        return False
    if newest is None:
        raise _damage(tune / EXPERIMENT, "it is not there")
    trials = _trials(newest)
    if not trials and not begun:
        return False
    if not any(_newest(tune, pattern) for pattern in DRAWN):
        raise _damage(tune / DRAWN[0], "it is not there")
    if _newest(tune, DRAWN[0]) and not _newest(tune, SEARCHER):  # what the search has learned
        raise _damage(tune / SEARCHER, "it is not there")
    for path in (tune / TUNER, *_newest_of_each(tune)):
        _check_pickle(path)
    return True


def _newest_of_each(tune: Path) -> Iterator[Path]:
    for pattern in PICKLES:
        if path := _newest(tune, pattern):
            yield path


def _newest(tune: Path, pattern: str) -> Path | None:
    """The file that Tune would read: the last by its name, which has the time."""
    return max(tune.glob(pattern), default=None)


def _trials(path: Path) -> list[object]:
    """The trials in an experiment's state, each as JSON inside of JSON."""
    try:
        state = _State.model_validate_json(_bytes(path))
    except ValidationError as error:
        raise _damage(path, error.errors(include_url=False)[0]["msg"]) from error
    return list(state.trial_data)


def _check_pickle(path: Path) -> None:
    """That a pickle is there to its end. Nothing in it is run."""
    data = _bytes(path)
    end = -1
    try:
        for opcode, _, place in pickletools.genops(data):
            end = (place or 0) + 1 if opcode.name == "STOP" else -1
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise _damage(path, str(error)) from error
    if end != len(data):
        raise _damage(path, "its end is missing" if end < 0 else "it has more bytes than were written")


def _bytes(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError as error:
        raise _damage(path, "it is not there") from error
    except OSError as error:
        raise file_error(f"{path} cannot be read ({error.strerror}).", error) from error


def _damage(path: Path, why: str) -> UserError:
    sweep = path.parent.parent
    return UserError(
        f"{path}, Ray Tune's state of this search, is damaged ({why[:200]}), so the search cannot go on. Nothing was changed: "
        f"the trials are in {sweep / TRIALS}, and `unsee report {sweep}` shows them. Restore that file, or write another "
        "sweep.dir for a new search."
    )
