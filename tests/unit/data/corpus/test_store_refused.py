"""A store that refuses is not asked again: wrong credentials do not pass."""

from __future__ import annotations

import errno
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from unsee_dist.data.corpus import store
from unsee_dist.errors import ExitCode, exit_code_of


@pytest.mark.parametrize("refusal", [PermissionError("Access Denied"), OSError(errno.EINVAL, "no key")])
def test_a_refusal_is_said_at_once_and_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    asked = []

    def refusing(*_: object, **__: object) -> bytes:
        asked.append(1)
        raise refusal

    monkeypatch.setattr(store, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", refusing)
    with pytest.raises(PermissionError) as met:
        store.Store("memory://corpus").read("index.json")
    assert exit_code_of(met.value) is ExitCode.MISTAKE
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [(403, PermissionError), (401, PermissionError), (503, store.Unreachable), (404, None)],
)
def test_what_a_web_server_answers_to_a_look_at_a_file(status: int, expected: type[Exception] | None) -> None:
    """fsspec says of all of them that there is no such file."""

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            """Not on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web = store.Store(f"http://127.0.0.1:{server.server_port}/a")
        if expected is None:
            assert web.sizes(["shard.tar"]) == {"shard.tar": None}
        else:
            with pytest.raises(expected):
                web.sizes(["shard.tar"])
        server.shutdown()
