"""Errors meant for people, and the exit codes of every command.

    UserError        a mistake of the user: setting = value, why it cannot be, what to write instead
    TransientError   a passing fault of a file system or a network: the same command continues
    anything else    a mistake of ours: it keeps its traceback, and a line says where to report it

Nothing here imports more than the standard library: commands that load no torch use it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import IntEnum
from functools import wraps

from unsee_dist import terminal
from unsee_dist.masking import masked

REPORT_TO = "https://github.com/unsee-dist/unsee_dist/issues"


class ExitCode(IntEnum):
    """What a process ends with. torchrun and deepspeed return 1 for all but COMPLETE."""

    COMPLETE = 0  # what the command is for is done
    BUG = 1  # a mistake of ours, with a traceback
    MISTAKE = 2  # a mistake of the user, in one sentence
    RANK_LOST = 3  # a rank hung or died
    UNUSABLE = 4  # `unsee evaluate`: the embeddings have collapsed or are not finite (`unsee export` refuses them with 2)
    TRANSIENT = 74  # EX_IOERR: a file system or a network failed for a while; the same command continues
    STOPPED = 75  # EX_TEMPFAIL: stopped by a signal, with a checkpoint; the same command continues


class UserError(ValueError):
    """A sentence for the user. A ValueError, so that pydantic's validators and callers from Python may treat it so."""


class TransientError(OSError):
    """A sentence about a fault that passes: a network file system that lost a handle, a store that does not answer."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class ProcessEnded(Exception):
    """A process of ours has ended with a code that is also this one's: its own output says why."""

    def __init__(self, sentence: str, code: ExitCode) -> None:
        super().__init__(sentence, code)  # both: it is sent between processes
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


OF_A_SIGNAL = 128  # an exit code that is larger by a signal's number: the process ended by it


def ended(sentence: str, code: int) -> Exception:
    """The error to raise for a process of ours that has ended with `code`; below 0 = a signal has killed it, from 128 on = it
    has ended at once after one, as a shell counts them."""
    if code == ExitCode.MISTAKE:
        return UserError(sentence)
    if code == ExitCode.TRANSIENT:
        return TransientError(sentence)
    if code < 0 or code > OF_A_SIGNAL or code == ExitCode.RANK_LOST:
        return ProcessEnded(sentence, ExitCode.RANK_LOST)
    return ProcessEnded(sentence, ExitCode.BUG)


# What a network file system or a network reports of itself. ENOSPC, EACCES and ENOENT are the user's to mend.
PASSING = frozenset(
    {
        *(errno.ESTALE, errno.EIO, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED),
        *(errno.ENOTCONN, errno.ENETRESET, errno.ENOLINK, errno.ECOMM, errno.EPROTO, errno.ESHUTDOWN),
        socket.EAI_AGAIN,  # no name server answers; negative, as no errno is. An unknown host (EAI_NONAME) is a mistake
    }
)


# What the user can mend, whichever path it concerns. Not ENOENT, ENOTDIR, EISDIR, EEXIST, EBADF: where nobody foresaw
# those, they may well be a bug.
MENDABLE = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE),
    }
)
ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def system_error(error: Exception) -> OSError | None:
    """What the system refused: the error itself, or out of one that has only its words: "... (os error 28)" of a library
    in Rust, "... [Errno 28] ..." of shutil."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    match = re.search(r"\((?:os error )(\d+)\)|\[Errno (\d+)\]", str(error))
    number = int(match[1] or match[2]) if match else 0
    return OSError(number, os.strerror(number)) if match else None


def is_transient(error: BaseException) -> bool:
    """Does this fault pass by itself? Decided by the error's number, never by its words."""
    # huggingface_hub's, a ConnectionError: it lasts as long as HF_HUB_OFFLINE is set
    if type(error).__name__ == "OfflineModeIsEnabled":
        return False
    if isinstance(error, TransientError | TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in PASSING


def file_error(sentence: str, error: OSError) -> UserError | TransientError:
    """The error to raise for a file that the system refused: `raise file_error(f"...", error) from error`.

    The sentence is meant for a user who can mend the cause; a fault that passes keeps it, as a TransientError.
    """
    return TransientError(sentence) if is_transient(error) else UserError(sentence)


def writing(
    what: object, remedy: str = "Make room, or choose another place."
) -> AbstractContextManager[None]:
    """Anything that the system refuses while `what`, which the user named, is written becomes a sentence: name, why not, remedy."""
    in_the_way = (errno.EEXIST, errno.ENOTDIR)  # for a folder
    return refusals(
        lambda refused: (
            f"{what} cannot be written ({'there is a file' if refused.errno in in_the_way else refused.strerror}). {remedy}"
        ),
        every=True,
    )


@contextmanager
def refusals(sentence: Callable[[OSError], str], every: bool = False) -> Iterator[None]:
    """For work on files that this package made: what the user can mend, or what passes, becomes the sentence. Any other
    error of the system may well be a bug, and stays, unless `every` one is meant. Also where a library raises an error of
    its own that only quotes the system's."""
    try:
        yield
    except (UserError, TransientError):  # a sentence already
        raise
    except Exception as error:
        refused = system_error(error)
        if refused is None or not (every or refused.errno in MENDABLE | PASSING):
            raise
        raise file_error(sentence(refused), refused) from error


# Packages that only some commands need, and the extra that brings each.
EXTRA_OF = {
    **dict.fromkeys(("ray", "optuna"), "sweep"),
    "matplotlib": "evaluate",
    "sentence_transformers": "evaluate",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "mteb": "mteb",
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx"),
    "sentencex": "split",
    "py3langid": "language",
    "nltk": "bench",
}


# What torch's DataLoader raises in the main process. Of a fork server's worker it cannot know the signal: stream.py looks.
KILLED_WORKER = re.compile(r"^DataLoader worker \(.*killed by signal: Killed")
OF_A_KILLED_WORKER = "A process of data.workers was killed, perhaps for its memory. Write fewer data.workers, or give the job more memory."


def foreseen(error: BaseException) -> UserError | None:
    """The sentence about an error whose kind says that the user can mend it, wherever it was raised; or None.

    An optional package that is not installed (a missing module of ours is a bug), a process of ours that was killed, and what
    the system refuses for want of room or of a right, or for the name of a path.
    """
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name not in EXTRA_OF:
            return None
        return UserError(f'{name} is not installed. Write: pip install "unsee_dist[{EXTRA_OF[name]}]"')
    if KILLED_WORKER.search(f"{error} {error.__cause__}") and isinstance(error, RuntimeError):
        return UserError(OF_A_KILLED_WORKER)
    # a process of ours was killed: the error has its sentence
    if isinstance(error, ChildProcessError) and error.errno is None:
        return UserError(str(error))
    refused = (system_error(error) or error) if isinstance(error, shutil.Error) else error
    if (of_torch := _of_torchs_cache(refused)) is not None:
        return of_torch
    if not isinstance(refused, OSError) or refused.errno not in MENDABLE:
        return None
    path = refused.filename or "A file"
    remedy = "Give another path, or the right to use this one"
    if refused.errno in ROOM:
        remedy = "Make room"
    elif refused.errno in (errno.EMFILE, errno.ENFILE):
        remedy = "Allow more open files (`ulimit -n 4096`)"
    return UserError(
        f"{path} cannot be used ({refused.strerror}). {remedy}, and write the same command again."
    )


COMPILE_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def _of_torchs_cache(error: BaseException) -> UserError | None:
    """torch makes the folder of its compiled graphs when transformers is imported, with or without parallel.compile."""
    cache = os.path.abspath(os.environ.get(COMPILE_CACHE, os.curdir))
    refused = getattr(error, "filename", None)
    if COMPILE_CACHE not in os.environ or not isinstance(error, OSError) or not isinstance(refused, str):
        return None
    if cache != refused and not cache.startswith(f"{refused}{os.sep}"):
        return None
    why = "there is a file" if error.errno in (errno.EEXIST, errno.ENOTDIR) else error.strerror
    return UserError(
        f"{COMPILE_CACHE} = {cache} cannot be written ({why}). torch keeps compiled graphs there: write another folder into that "
        "variable of the environment, or unset it."
    )


def is_our_bug(error: BaseException) -> bool:
    """A bug whose last line is one of this package's: for code that must go on, no matter what a library raises."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    ours = place is not None and str(place.tb_frame.f_globals.get("__name__", "")).startswith("unsee_dist")
    return ours and exit_code_of(error) is ExitCode.BUG


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a process that `error` ends."""
    if isinstance(error, ProcessEnded):
        return error.code
    if isinstance(error, UserError) or foreseen(error) is not None:
        return ExitCode.MISTAKE
    return ExitCode.TRANSIENT if is_transient(error) else ExitCode.BUG


def ends_process(work: Callable[..., None]) -> Callable[..., None]:
    """The work of a thread without which a process must not go on: an error that nobody foresaw ends the process."""

    @wraps(work)
    def guarded(*arguments: object) -> None:
        try:
            work(*arguments)
        except Exception as error:
            code = exit_code_of(error)
            with suppress(OSError):  # nobody may read what this process says
                report(error, f"thread {threading.current_thread().name}")
            os._exit(code)

    return guarded


def of_a_bug(prefix: str = "", also: str = "") -> str:
    """The lines after a traceback: whose mistake it is, and where to report it. also: where else the lines above are."""
    return (
        f"{prefix}this is a bug of unsee_dist, not a mistake of yours. Please report it with the lines above{also}:\n"
        f"  {REPORT_TO}"
    )


def report(error: BaseException, program: str = "") -> ExitCode:
    """Print an error on stderr, as its kind is printed, and return the exit code."""
    error = foreseen(error) or error
    code = exit_code_of(error)
    prefix = f"{program}: " if program else ""
    if code is ExitCode.BUG:
        other = isinstance(error, ProcessEnded)  # its traceback is in its own output
        said = f"{prefix}{error}" if other else "".join(traceback.format_exception(error)).rstrip("\n")
        lines = [said, of_a_bug(prefix)]
    elif code is ExitCode.TRANSIENT:
        lines = [f"{prefix}{error} This fault may pass by itself: the same command continues."]
    else:
        lines = [f"{prefix}{error}"]
    width = None if code is ExitCode.BUG else terminal.columns(sys.stderr)
    terminal.clear_waiting()
    print(terminal.wrapped(masked("\n".join(lines)), width), file=sys.stderr, flush=True)
    return code
