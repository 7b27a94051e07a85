"""A web server that gives the index of a corpus and not all of its files: one sentence that names the file, exit code 2."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from unsee_dist.data import Shards
from unsee_dist.data.corpus import block_file, store
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.processes import run_serially
from unsee_dist.errors import ExitCode, UserError, report
from unsee_dist.model.sound import write_sound_encoder

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


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("shards info URL", 403),
        ("shards info URL", 401),
        ("shards verify URL", 403),
        ("shards head URL -n 2500", 403),
        ("train unsee-vicreg data.shards=URL run.dir=RUN track.mlflow=false model.encoder=ENCODER", 403),
    ],
)
def test_a_shard_that_is_refused_is_one_sentence(
    command: str, status: int, folder: Path, tmp_path: Path
) -> None:
    """In a process of its own: training ends the one it is in."""
    write_sound_encoder(tmp_path / "encoder")
    with web(folder, lambda path: path.endswith(SECOND), status) as url:
        for name, value in (("URL", url), ("RUN", tmp_path / "run"), ("ENCODER", tmp_path / "encoder")):
            command = command.replace(name, str(value))
        done = subprocess.run(
            [sys.executable, "-c", "from unsee_dist.cli import main; main()", *command.split()],
            capture_output=True,
            text=True,
            env=os.environ | {"COLUMNS": "1000"},
        )
    said = done.stderr
    assert done.returncode == ExitCode.MISTAKE, said
    assert "Traceback" not in said
    assert f"{url}/{SECOND} cannot be read ({status}, message=" in said
    assert "Get the right to read it" in said
    assert "damaged" not in said
    assert said.count("cannot be read") == 1


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
