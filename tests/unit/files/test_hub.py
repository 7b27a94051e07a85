"""What a library could not load becomes a sentence; a bug of ours, a full disk and a sentence stay what they are."""

from __future__ import annotations

import errno
import importlib
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, Response

from unsee_dist.data.prepare.bad_records import BadRecords
from unsee_dist.data.prepare.columns import read_dataset
from unsee_dist.errors import TransientError, UserError
from unsee_dist.evaluation import sts_files
from unsee_dist.evaluation.models import open_model
from unsee_dist.evaluation.mteb_suite import prefetch
from unsee_dist.files import hub
from unsee_dist.files.hub import is_load_error, load_failure, reason
from unsee_dist.model.encoder import load_encoder, load_tokenizer
from unsee_dist.publish.export import push

if TYPE_CHECKING:
    from unsee_dist.evaluation.tasks import EvaluationTask


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
def test_an_error_below_code_of_ours_that_a_library_called_is_a_bug(below: bool) -> None:
    """The last line is a library's, as where a function of ours gives torch a wrong argument."""
    ours = eval(compile("lambda callback: callback()", "hub", "eval"), vars(hub))

    def of_library() -> None:
        raise TypeError("planted")

    with pytest.raises(TypeError) as caught:
        ours(lambda: ours(of_library)) if below else ours(of_library)
    assert is_load_error(caught.value, works_elsewhere=lambda: True) is not below


def answered(status: int) -> Exception:
    """What transformers makes of a Hub's answer."""
    library = importlib.import_module(Response.__module__.partition(".")[0])
    response = Response(status, request=library.Request("GET", "https://hub/x"))
    try:
        try:
            raise HfHubHTTPError("refused", response=response)
        except HfHubHTTPError as error:
            raise LocalEntryNotFoundError("not in the cache") from error
    except LocalEntryNotFoundError as error:
        made = OSError("We couldn't connect")
        made.__cause__ = error
        return made


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        *((answered(status), TransientError) for status in (408, 429, 500, 502, 503, 504)),
        *((answered(status), UserError) for status in (400, 401, 403, 404, 410)),
        (importlib.import_module(Response.__module__.partition(".")[0]).ReadTimeout("slow"), TransientError),
        (
            importlib.import_module(Response.__module__.partition(".")[0]).UnsupportedProtocol("x://"),
            UserError,
        ),
        (TimeoutError("slow"), TransientError),
        (OfflineModeIsEnabled("offline"), UserError),
        (socket.gaierror(socket.EAI_NONAME, "unknown host"), UserError),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), TransientError),
        (ValueError("unknown split"), UserError),
        (FileNotFoundError("no such dataset"), UserError),
    ],
)
def test_a_hub_that_does_not_answer_passes_and_what_it_refuses_does_not(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    assert type(load_failure("a sentence", error)) is kind


def test_without_a_network_on_purpose_nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """datasets says of both that the Hub could not be reached."""
    error = ConnectionError("Couldn't reach 'owner/name' on the Hub")
    for offline, kind in ((True, UserError), (False, TransientError)):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", offline)
        assert type(load_failure("a sentence", error)) is kind


@pytest.mark.parametrize(("status", "kind"), [(503, TransientError), (403, UserError)])
def test_every_place_that_asks_the_hub_tells_a_fault_that_passes(
    status: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise answered(status)

    task = SimpleNamespace(name="STS12", task=SimpleNamespace(load_data=fails))
    places: dict[str, Callable[[], object]] = {
        "datasets.load_dataset": lambda: sts_files.load_pairs("owner/name:test"),
        "transformers.AutoConfig.from_pretrained": lambda: load_encoder("owner/name", None),
        "transformers.AutoTokenizer.from_pretrained": lambda: load_tokenizer("owner/name"),
        "sentence_transformers.SentenceTransformer.__init__": lambda: open_model("owner/name"),
        "huggingface_hub.HfApi.create_repo": lambda: push(tmp_path, "owner/name"),
        "unsee_dist.evaluation.mteb_suite.AbsTaskAggregate": lambda: prefetch(cast("EvaluationTask", task)),
    }
    for name, ask in places.items():
        with monkeypatch.context() as patched:
            patched.setattr(name, type("Other", (), {}) if name.startswith("unsee") else fails)
            with pytest.raises(kind) as met:
                ask()
            assert type(met.value) is kind, name
    with monkeypatch.context() as patched:
        patched.setattr("datasets.load_dataset", fails)
        with pytest.raises(kind) as met:
            list(read_dataset("dataset:owner/name", "text", BadRecords()))
        assert type(met.value) is kind
