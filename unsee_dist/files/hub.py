"""The Hugging Face Hub: names on it, and errors of its libraries that are no bug of ours: something could not be loaded or
uploaded.

What a library raises for files that are missing or damaged, for a name that is unknown and for a server that does not answer
is a load error by its type. A TypeError, a KeyError and their like are not: a library stumbles over a damaged file, but as well
over a bug of its own or of ours. Where the same call can be tried with files that are whole, that decides.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from unsee_dist.errors import PASSING, ExitCode, TransientError, UserError, exit_code_of, is_our_bug
from unsee_dist.files.remote import passes

# Their errors have no common class: "no network", "not found" and "damaged" have a dozen types.
LIBRARIES = frozenset(
    {
        *(
            "_pickle",
            "aiohttp",
            "datasets",
            "fsspec",
            "httpx",
            "httpx2",
            "huggingface_hub",
            "pyarrow",
            "requests",
        ),
        "safetensors",
    }
)


def is_load_error(
    error: Exception, *more: type[Exception], works_elsewhere: Callable[[], bool] | None = None
) -> bool:
    """Whether a library could not load or upload something. False for a bug of ours, and for an error that is or becomes a
    sentence by itself: a UserError, a full disk, a file system that fails for a while, a missing package.

    more: types that the library raises on purpose, besides OSError, ValueError and its own. works_elsewhere: whether the same
    call takes what is known to be whole; absent, an error of any other type is a bug.
    """
    if is_our_bug(error) or exit_code_of(error) is ExitCode.MISTAKE:
        return False
    if isinstance(error, OSError) and error.errno in PASSING:
        return False
    of_library = any(cls.__module__.partition(".")[0] in LIBRARIES for cls in type(error).__mro__)
    if of_library or isinstance(error, (OSError, ValueError, *more)):
        return True
    if works_elsewhere is None or isinstance(error, MemoryError) or _calls_us(error.__traceback__):
        return False
    return works_elsewhere()


def load_failure(sentence: str, error: Exception) -> UserError | TransientError:
    """The exception to raise for a load error: `raise load_failure(f"...", error) from error`. A Hub that does not answer may do
    so later; what it refuses, and what is not there or damaged, the user can mend."""
    return TransientError(sentence) if passes(error) else UserError(sentence)


def _calls_us(place: TracebackType | None) -> bool:
    """Whether a library that we have called has called code of this package on the way to an error."""
    called = in_library = False
    while place is not None:
        ours = str(place.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "unsee_dist"
        if ours and in_library:
            return True
        called, in_library = called or ours, called and not ours
        place = place.tb_next
    return False


def is_hub_name(name: str) -> bool:
    """Whether a model or a dataset on the Hub can have this name."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        try_to_load_from_cache(
            name, "config.json"
        )  # looks at the name first; the function that only does so is private
    except HFValidationError:
        return False
    return True


def reason(error: Exception) -> str:
    """The first line of an error's message, or the name of its type."""
    return next((line for line in str(error).strip().splitlines() if line), type(error).__name__)
