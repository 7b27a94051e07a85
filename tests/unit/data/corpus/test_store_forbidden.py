"""A web server that gives the index of a corpus and not all of its files: one sentence that names the file, exit code 2."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from unsee_dist.cli import main
from unsee_dist.data import Shards
from unsee_dist.data.corpus import block_file, store
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.processes import run_serially
from unsee_dist.errors import ExitCode, UserError, report

SECOND = "shard-000001.tar"


@contextmanager
def web(folder: Path, forbidden: Callable[[str], bool], status: int = 403) -> Iterator[str]:
    """The URL of a folder; the paths that `forbidden` names are answered with a status."""

    class Answers(http.server.SimpleHTTPRequestHandler):
        def send_head(self):
            if forbidden(self.path):
                self.send_error(status)
                return None
            return super().send_head()

        def log_message(self, *_: object) -> None:
            """Not on stderr."""

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Answers, directory=str(folder.parent))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{folder.name}"
        server.shutdown()


@pytest.fixture
def folder(corpus: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "FIRST_WAIT_S", 0.0)
    return Path(shutil.copytree(corpus.path, tmp_path / "corpus"))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "arguments",
    [
        ["shards", "info", "URL"],
        ["shards", "verify", "URL"],
        ["shards", "head", "URL", "-n", "2500"],
        ["train", "unsee-vicreg", "data.shards=URL"],
    ],
)
def test_a_shard_that_is_refused_is_one_sentence(
    arguments: list[str], status: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with web(folder, lambda path: path.endswith(SECOND), status) as url:
        given = [each.replace("URL", url) for each in arguments]
        if arguments[0] == "train":
            given += [f"run.dir={tmp_path / 'run'}", "track.mlflow=false", "model.encoder=x/y"]
        monkeypatch.setattr("sys.argv", ["unsee", *given])
        monkeypatch.setenv("COLUMNS", "1000")
        with pytest.raises(SystemExit) as ended:
            main()
    said = capsys.readouterr().err
    assert ended.value.code == ExitCode.MISTAKE, said
    assert "Traceback" not in said
    assert f"{url}/{SECOND} cannot be read ({status}, message=" in said
    assert "Get the right to read it" in said
    assert "damaged" not in said
    assert len([line for line in said.splitlines() if "cannot be read" in line]) == 1


def test_what_is_refused_is_no_damage_that_may_be_skipped(folder: Path) -> None:
    with web(folder, lambda path: path.endswith(SECOND)) as url:
        shards = Shards(url, on_damage="skip")
        with pytest.raises(store.Refused, match=f"{url}/{SECOND} cannot be read"):
            shards.replacement_block(len(shards.blocks) - 1)


def test_an_index_that_is_refused_is_one_sentence(folder: Path) -> None:
    with web(folder, lambda path: path.endswith("index.json")) as url:
        with pytest.raises(UserError, match=f"^data.shards = {url} cannot be read \\(403, message=") as met:
            Shards(url)
        assert report(met.value) is ExitCode.MISTAKE


def test_tokens_that_are_refused_are_one_sentence(folder: Path, tokenizer) -> None:
    tokenise(folder, tokenizer, 16, run_serially)
    publish(folder, tokenizer, 16)
    with web(folder, lambda path: path.endswith(".tokens")) as url:
        tokens = Shards(url).tokens(tokenizer, 16)
        assert tokens is not None
        with pytest.raises(store.Refused, match=r"shard-000000\.tokens cannot be read \(403") as met:
            tokens.read(0)
    assert "Delete" not in str(met.value)


def test_rows_of_blocks_that_are_refused_are_one_sentence(
    folder: Path, tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_file, "LISTED_BLOCKS", 0)
    tokenise(folder, tokenizer, 16, run_serially)
    publish(folder, tokenizer, 16)
    refused = pytest.raises(store.Refused, match=r"blocks\.npy cannot be read \(403")
    with web(folder, lambda path: path.endswith("blocks.npy")) as url, refused:
        Shards(url).tokens(tokenizer, 16)


def test_a_server_that_cannot_give_a_shard_now_is_a_passing_fault(folder: Path) -> None:
    with web(folder, lambda path: path.endswith(SECOND), 503) as url, pytest.raises(store.Unreachable):
        Shards(url)
