"""`unsee prepare` as people call it: standard input, tokens for an encoder, tables."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from integration import tiny as making
from transformers import AutoTokenizer

from unsee_dist import cli
from unsee_dist.config.load import load
from unsee_dist.config.sections import DataSettings, ModelSettings, RunConfig, TrainSettings
from unsee_dist.data import Shards, Stream
from unsee_dist.data.stream.parts import Parts

UNSEE = str(making.BIN / "unsee")


def prepare(*arguments: object, standard_input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [UNSEE, "prepare", *map(str, arguments)]
    return subprocess.run(
        command, input=standard_input, capture_output=True, env=making.environment(), timeout=120
    )


def test_standard_input_is_a_file_that_was_piped(tmp_path: Path) -> None:
    text = ("\n".join(making.corpus(1500)) + "\n").encode()
    (tmp_path / "t.txt").write_bytes(text)
    assert prepare(tmp_path / "t.txt", "--out", tmp_path / "file").returncode == 0
    for _ in range(2):  # the second time it is already complete
        done = prepare("-", "--out", tmp_path / "piped", standard_input=text)
        assert done.returncode == 0, done.stderr
    assert b"already complete" in b" ".join(done.stdout.split())  # the title is as long as the path
    assert Shards(tmp_path / "piped").fingerprint == Shards(tmp_path / "file").fingerprint
    refused = prepare("-", "--out", tmp_path / "piped", standard_input=text + b"one more sentence here\n")
    assert (refused.returncode, refused.stderr.count(b"\n")) == (2, 1)
    assert b"already has another corpus" in refused.stderr
    assert not (tmp_path / "piped" / "preparing").exists()


def test_tokens_are_prepared_for_an_encoder_and_used(
    tmp_path: Path, tiny: making.Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tiny.folder / "sentences.txt", tmp_path / "out"
    cli.corpus.prepare([str(text)], out, tokenizer=str(tiny.encoder), max_tokens=12, zst=True)
    printed = capsys.readouterr().out
    assert "tokens a sentence" in printed
    assert "cut at 12 tokens" in printed
    command = shlex.split(printed.splitlines()[-1].removeprefix("next: "))
    model = load(command[2], command[3:]).model
    assert (model.encoder, model.max_tokens) == (str(tiny.encoder), 12)
    tokenizer = AutoTokenizer.from_pretrained(tiny.encoder)
    config = RunConfig(
        seed=1,
        train=TrainSettings(batch=32, micro_batch=8),
        model=ModelSettings(max_tokens=12),
        data=DataSettings(workers=0),
    )
    assert Parts(Shards(out), tokenizer, config, 0, 1).tokens is not None
    assert Parts(Shards(tiny.shards), tokenizer, config, 0, 1).tokens is None
    pairs = zip(
        Stream(Shards(out), tokenizer, config).batches(1, 70),
        Stream(Shards(tiny.shards), tokenizer, config).batches(1, 70),
        strict=True,
    )
    for ready, text_batch in pairs:
        assert ready.ids == text_batch.ids
        for one, other in zip(ready.micro_batches, text_batch.micro_batches, strict=True):
            assert one.input_ids.tolist() == other.input_ids.tolist()
    index = json.loads(next(out.glob("tokens-*/index.json")).read_bytes())
    assert index["max_tokens"] == 12


def test_a_wrong_encoder_is_said_before_the_work(tmp_path: Path, tiny: making.Tiny) -> None:
    with pytest.raises(ValueError, match=r"\./nowhere is not a folder"):
        cli.corpus.prepare([str(tiny.folder / "sentences.txt")], tmp_path / "out", tokenizer="./nowhere")
    assert not (tmp_path / "out").exists()
