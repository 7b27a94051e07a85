"""A fault that passes, and a bug of ours, are no mistake of the user: wherever a corpus is read."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unsee_dist.data import Shards
from unsee_dist.data.corpus import index, store, tokenise_together
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.processes import run_serially
from unsee_dist.distributed.world import World
from unsee_dist.errors import TransientError, UserError

FAULTS = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale"),
    store.Unreachable("no answer"),
]


def failing(monkeypatch: pytest.MonkeyPatch, fault: Exception, of: Callable[[str], bool]) -> None:
    """Every read of the files that `of` names raises."""
    read = store.Store.read

    def reading(self, name, offset=0, length=None):
        if of(name):
            raise fault
        return read(self, name, offset, length)

    monkeypatch.setattr(store.Store, "read", reading)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_while_a_corpus_is_opened(corpus, monkeypatch, fault) -> None:
    failing(monkeypatch, fault, lambda name: name == "index.json")
    with pytest.raises(TransientError):
        Shards(corpus.path)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("on_damage", ["stop", "skip"])
def test_a_passing_fault_while_a_shard_is_read_is_no_damage(corpus, monkeypatch, fault, on_damage) -> None:
    shards = Shards(corpus.path, on_damage=on_damage)
    failing(monkeypatch, fault, lambda name: name.endswith(".tar"))
    with pytest.raises(TransientError, match="cannot be re") as met:
        shards.head(1)
    assert "delete" not in str(met.value)
    assert "damaged" not in str(met.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_while_tokens_are_read_asks_nobody_to_delete_them(
    corpus, tokenizer, tmp_path: Path, monkeypatch, fault
) -> None:
    folder = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    tokenise(folder, tokenizer, 16, run_serially)
    publish(folder, tokenizer, 16)
    tokens = Shards(folder).tokens(tokenizer, 16)
    failing(monkeypatch, fault, lambda name: name.endswith(".tokens"))
    with pytest.raises(TransientError) as met:
        tokens.read(0)
    assert "Delete" not in str(met.value)
    failing(monkeypatch, fault, lambda name: name == "index.json")
    with pytest.raises(TransientError):
        corpus.tokens(tokenizer, 16)


def test_a_damaged_index_of_tokens_is_a_sentence(corpus, tokenizer, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    tokenise(folder, tokenizer, 16, run_serially)
    publish(folder, tokenizer, 16)
    (path,) = folder.glob("tokens-*/index.json")
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read as an index"):
        Shards(folder).tokens(tokenizer, 16)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_while_ranks_tokenise_together(corpus, monkeypatch, fault) -> None:
    def tokenising(*_: object) -> None:
        raise fault

    monkeypatch.setattr(tokenise_together, "tokenise", tokenising)
    with pytest.raises(TransientError):
        tokenise_together._tokenise_share(corpus, None, 16, 1, World.alone())


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, UserError), (errno.ENOENT, FileNotFoundError), (errno.EBADF, OSError)]
)
def test_only_what_can_be_mended_is_a_sentence_while_ranks_tokenise_together(
    corpus, monkeypatch, number: int, kind: type[Exception]
) -> None:
    def tokenising(*_: object) -> None:
        raise OSError(number, "planted")

    monkeypatch.setattr(tokenise_together, "tokenise", tokenising)
    with pytest.raises(kind, match="planted") as met:
        tokenise_together._tokenise_share(corpus, None, 16, 1, World.alone())
    assert isinstance(met.value, UserError) is (kind is UserError)


def test_a_bug_in_the_check_of_an_index_is_no_damage(corpus, monkeypatch) -> None:
    def bug(_: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(index, "_contradiction", bug)
    with pytest.raises(KeyError, match="planted"):
        Shards(corpus.path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "null", '{"format": 1}', '{"format": 1, "fingerprint": "a", "shards": [1]}']
)
def test_what_is_no_index_is_a_sentence(corpus, tmp_path: Path, content: str) -> None:
    folder = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    (folder / "index.json").write_text(content)
    with pytest.raises(
        UserError, match=r"index.json is damaged or was edited: it cannot be read as an index"
    ):
        Shards(folder)
