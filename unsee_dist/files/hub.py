"""What can go wrong when the Hugging Face libraries load or upload something, told apart from bugs of ours."""

from __future__ import annotations

from unsee_dist.errors import ExitCode, exit_code_of, is_our_bug

# Their errors have no common class: "no network", "not there" and "damaged" are of a dozen types.
LIBRARIES = frozenset(
    {"aiohttp", "datasets", "fsspec", "httpx", "huggingface_hub", "pyarrow", "requests", "safetensors"}
)


def is_load_error(error: Exception) -> bool:
    """Whether a library could not load or upload what it was given. False for a bug of ours, and for what already is a
    sentence: a full disk, a missing package."""
    if is_our_bug(error) or exit_code_of(error) is ExitCode.MISTAKE:
        return False
    of_library = any(cls.__module__.partition(".")[0] in LIBRARIES for cls in type(error).__mro__)
    return of_library or isinstance(error, OSError | ValueError | KeyError | RuntimeError)


def reason(error: Exception) -> str:
    """The first line of an error's message, or the name of its type."""
    return next((line for line in str(error).strip().splitlines() if line), type(error).__name__)
