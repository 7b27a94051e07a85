"""What a library could not load becomes a sentence; a bug of ours, a full disk and a sentence stay what they are."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import OfflineModeIsEnabled

from unsee_dist.errors import UserError
from unsee_dist.files import hub
from unsee_dist.files.hub import is_load_error, reason


@pytest.mark.parametrize(
    "error",
    [
        OfflineModeIsEnabled("offline"),
        DatasetGenerationError("cut off"),
        FileNotFoundError("no such data set"),
        ConnectionError("no network"),
        ValueError("unknown split"),
    ],
)
def test_errors_of_the_libraries_are_load_errors(error: Exception) -> None:
    assert is_load_error(error)


@pytest.mark.parametrize(
    "error",
    [
        UserError("a sentence"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.EIO, "Input/output error"),
        ModuleNotFoundError("No module named 'mteb'", name="mteb"),
        TypeError("an unexpected argument"),
        AssertionError(),
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_load_error(error)


def test_a_caller_can_add_types_but_not_a_bug_of_ours() -> None:
    assert is_load_error(TypeError("a config without a key"), TypeError)
    assert not is_load_error(UserError("a sentence"), UserError)
    bug = eval(compile("lambda: [0 for (_,) in ((),)]", "hub", "eval"), vars(hub))
    assert not is_load_error(_raised_by(bug), ValueError)


def _raised_by(function: Callable[[], object]) -> Exception:
    with pytest.raises(ValueError, match="unpack") as caught:
        function()
    return caught.value


def test_the_same_error_is_ours_when_our_line_raised_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug() -> None:
        (_,) = ()

    assert is_load_error(_raised_by(bug))
    monkeypatch.setattr(
        hub, "bug", eval(compile("lambda: [0 for (_,) in ((),)]", "hub", "eval"), vars(hub)), False
    )
    assert not is_load_error(_raised_by(vars(hub)["bug"]))


def test_a_reason_is_one_line() -> None:
    assert reason(ValueError("\n  first\nsecond")) == "first"
    assert reason(ValueError()) == "ValueError"


# Errors of Python itself, for a library that stumbles: over a damaged file, or over a bug.
STUMBLES = [
    TypeError("planted"),
    AttributeError("planted"),
    KeyError("planted"),
    RuntimeError("planted"),
    ZeroDivisionError(),
]


@pytest.mark.parametrize("error", STUMBLES)
def test_what_a_library_stumbles_over_is_the_folders_fault_only_where_a_whole_one_works(
    error: Exception,
) -> None:
    assert not is_load_error(error)
    assert is_load_error(error, works_elsewhere=lambda: True)
    assert not is_load_error(error, works_elsewhere=lambda: False)


@pytest.mark.parametrize("below", [True, False])
def test_an_error_below_code_of_ours_that_a_library_called_is_a_bug(
    below: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line is a library's, as where a function of ours gives torch a wrong argument."""
    ours = eval(compile("lambda callback: callback()", "hub", "eval"), vars(hub))

    def of_library() -> None:
        raise TypeError("planted")

    with pytest.raises(TypeError) as caught:
        ours(lambda: ours(of_library)) if below else ours(of_library)
    assert is_load_error(caught.value, works_elsewhere=lambda: True) is not below
