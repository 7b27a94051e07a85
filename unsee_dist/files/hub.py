"""The Hugging Face Hub: names on it, and errors of its libraries that are no bug of ours: something could not be loaded or
uploaded."""

from __future__ import annotations

from unsee_dist.errors import PASSING, ExitCode, exit_code_of, is_our_bug

# Their errors have no common class: "no network", "not found" and "damaged" have a dozen types.
LIBRARIES = frozenset(
    {"aiohttp", "datasets", "fsspec", "httpx", "huggingface_hub", "pyarrow", "requests", "safetensors"}
)


def is_load_error(error: Exception, *more: type[Exception]) -> bool:
    """Whether a library could not load or upload something. False for a bug of ours, and for an error that is or becomes a
    sentence by itself: a UserError, a full disk, a file system that fails for a while, a missing package. more: types that
    damaged files raise inside a library."""
    if is_our_bug(error) or exit_code_of(error) is ExitCode.MISTAKE:
        return False
    if isinstance(error, OSError) and error.errno in PASSING:
        return False
    of_library = any(cls.__module__.partition(".")[0] in LIBRARIES for cls in type(error).__mro__)
    return of_library or isinstance(error, (OSError, ValueError, KeyError, RuntimeError, *more))


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
