"""The parsers that are tried, each with a sound folder made by our own writers and a reader that gives all its meaning."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import xxhash
import zstandard
from fuzz import Parser
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unsee_dist.config import load
from unsee_dist.data.corpus import block_file
from unsee_dist.data.corpus.block_file import BLOCKS, HEADER, write_apart
from unsee_dist.data.corpus.blocks import ROW, BlockColumns
from unsee_dist.data.corpus.entries import LISTED, as_tree
from unsee_dist.data.corpus.index import (
    INDEX,
    CorpusIndex,
    ShardEntry,
    blocks_of,
    fingerprint,
    read_index,
)
from unsee_dist.data.corpus.index import sealed as sealed_index
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.corpus.store import Store
from unsee_dist.data.corpus.tokenise import publish, tokenise
from unsee_dist.data.corpus.tokens import open_tokens
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.prepare.sources import input_splits
from unsee_dist.data.processes import worker_pool
from unsee_dist.distributed.loss_scale import LossScale
from unsee_dist.evaluation.local_tasks import local_tasks
from unsee_dist.evaluation.scores import read_scores, write_score
from unsee_dist.files.owner import Owner, owner_file
from unsee_dist.files.trees import sealed
from unsee_dist.metrics.task_score import ModelIdentity, PairCosines, TaskScore
from unsee_dist.sweep import ledger
from unsee_dist.sweep.failures import read_failures, write_failure
from unsee_dist.sweep.load import load_sweep
from unsee_dist.sweep.trial import OUTCOME, TrialOutcome
from unsee_dist.tracking import metrics_file, unsent
from unsee_dist.training.checkpoint import directory
from unsee_dist.training.checkpoint.manifest import NAME, Identity, Manifest, StoredFile
from unsee_dist.training.checkpoint.parts import BUFFERS, digest
from unsee_dist.training.progress import Best, Progress

THINGS = ["river", "house", "garden", "teacher", "engine", "letter", "window", "forest", "bridge", "island"]
DEEDS = ["follows", "carries", "repairs", "crosses", "watches", "builds", "forgets"]
SENTENCES = [f"the {a} {deed} the {b} near number {n}" for n, (a, deed, b) in enumerate(
    (a, deed, b) for a in THINGS for deed in DEEDS for b in THINGS
)]  # fmt: skip
SHARD = "shard-000000.tar"
TOKENS = "tokens"


def _corpus(folder: Path, zst: bool = False) -> None:
    text = folder.parent / "text.txt"
    text.write_text("\n".join(SENTENCES[:40]) + "\n", encoding="utf-8")
    prepare([str(text)], folder / "made", PrepareSettings(zst=zst))
    for path in (folder / "made").iterdir():
        path.rename(folder / path.name)
    (folder / "made").rmdir()


def _read_blocks(folder: Path) -> object:
    shards = Shards(folder)
    return [shards.read(block) for block in range(len(shards.blocks))]


def _seal_json(name: str) -> Callable[[Path], None]:
    """The digest of one file anew."""

    def seal(folder: Path) -> None:
        tree = json.loads((folder / name).read_bytes())
        (folder / name).write_text(json.dumps(sealed(tree)))

    return seal


def _seal_blocks(folder: Path) -> None:
    """All checksums and sizes of a corpus of one block, as they are now."""
    tree, raw = json.loads((folder / INDEX).read_bytes()), (folder / SHARD).read_bytes()
    (shard,) = tree["shards"]
    shard |= {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    shard["blocks"] |= {"offset": [0], "length": [len(raw)], "xxh3": [xxhash.xxh3_64_hexdigest(raw)]}
    tree["fingerprint"] = hashlib.sha256(shard["sha256"].encode()).hexdigest()[:32]
    (folder / INDEX).write_text(json.dumps(sealed(tree)))


def _tokenizer() -> PreTrainedTokenizerFast:
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    model = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["?", *words])}, unk_token="?"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="?")


def _tokens(folder: Path) -> None:
    _corpus(folder)
    with worker_pool(1) as work:
        tokenise(folder, _tokenizer(), 9, work)
    publish(folder, _tokenizer(), 9)
    (made,) = folder.glob("tokens-*")
    made.rename(folder / TOKENS)


def _read_tokens(folder: Path) -> object:
    shards = Shards(folder)
    tokens = open_tokens(Store(folder / TOKENS), shards.fingerprint, shards.blocks)
    return [(block.ids.tolist(), block.lengths.tolist()) for block in (tokens.read(0),)]


def _seal_tokens(folder: Path) -> None:
    index, raw = folder / TOKENS / INDEX, (folder / TOKENS / "shard-000000.tokens").read_bytes()
    tree = json.loads(index.read_bytes())
    tree["shards"][0]["blocks"] |= {"length": [len(raw)], "xxh3": [xxhash.xxh3_64_hexdigest(raw)]}
    index.write_text(json.dumps(sealed(tree)))


def _block_rows(folder: Path) -> None:
    """The index of a large corpus, in small: three shards of three blocks each, without their files."""
    xxh3, sentences = [f"{n:016x}" for n in (1, 2**63, 2**64 - 1)], [1024, 1024, 7]
    columns = BlockColumns([0, 512, 1024], [512, 512, 1536], xxh3, sentences)
    shards = [ShardEntry(f"shard-{n:06d}.tar", 2560, f"{n:064x}", 2055, columns) for n in range(3)]
    with mock.patch.object(block_file, "LISTED_BLOCKS", 0):
        kept = write_apart(shards, 9, folder)
    digest = fingerprint(shard.sha256 for shard in kept)
    index = sealed_index(CorpusIndex(format=LISTED, fingerprint=digest, sentences=3 * 2055, shards=kept))
    (folder / INDEX).write_text(json.dumps(as_tree(index)))


def _read_block_rows(folder: Path) -> object:
    index = read_index(Store(folder), sizes=False)
    return index, list(blocks_of(Store(folder), index.shards))


def _token_rows(folder: Path) -> None:
    with mock.patch.object(block_file, "LISTED_BLOCKS", 0):
        _tokens(folder)


def _seal_rows(place: str) -> Callable[[Path], None]:
    """The checksums of the rows in a file of blocks, as they are now."""

    def seal(folder: Path) -> None:
        index, first = folder / place / INDEX, 0
        rows, tree = (folder / place / BLOCKS).read_bytes()[HEADER:], json.loads(index.read_bytes())
        for shard in tree["shards"]:
            last = first + ROW.itemsize * shard["blocks"]["number"]
            shard["blocks"]["xxh3"] = xxhash.xxh3_64_hexdigest(rows[first:last])
            first = last
        index.write_text(json.dumps(sealed(tree)))

    return seal


# of any value of each field's type: what an identity consists of is no concern of these tests
IDENTITY: dict[str, Any] = {
    each.name: 7 if each.type == "int" else {} if str(each.type).startswith("dict") else "x"
    for each in fields(Identity)
}


PARTS = {
    "rank-00000.safetensors": ("master,exp_avg,exp_avg_sq,ema/a.w@0+5",),
    "rank-00001.safetensors": ("master,exp_avg,exp_avg_sq,ema/a.w@5+8",),
}


def _checkpoint(folder: Path) -> None:
    kinds = ("master", "exp_avg", "exp_avg_sq", "ema")
    values = np.arange(8, dtype=np.float32)
    save_file({f"{kind}/a.w@0": values[:5] for kind in kinds}, folder / "rank-00000.safetensors")
    save_file({f"{kind}/a.w@5": values for kind in kinds}, folder / "rank-00001.safetensors")
    save_file({"mean": values}, folder / BUFFERS)
    _seal_checkpoint(folder)


def _seal_checkpoint(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"))
    stored = tuple(
        StoredFile(path.name, path.stat().st_size, digest(path), PARTS.get(path.name, ())) for path in files
    )
    best = Best("dev/sts", 70.5, 6, {"dev/sts": 70.5})
    progress = Progress(step=9, updates=8, evaluated=6, best=best, before={"dev/sts": 60.0}, lines=11)
    manifest = Manifest(Identity(**IDENTITY), progress, "run-1", 8, LossScale(), stored)
    (folder / NAME).write_text(manifest.to_json())


def _read_checkpoint(folder: Path) -> object:
    manifest = directory.verify(folder, values=True)
    return manifest, [(folder / file.name).read_bytes() for file in manifest.files]


def _records(folder: Path) -> None:
    row = ledger.LedgerRow(1, "a", "complete", {"train.lr": 1e-4}, 40, 20, 70.5, "", {"dev/sts": 70.5})
    ledger.write(folder, [row, ledger.LedgerRow(2, "b", "failed", {"train.lr": 3e-4}, why="boom")])
    owner_file("driver.json").write(folder, Owner("a1", "node-3", "boot", 4711, "12345", 1.5))
    OUTCOME.write(folder, TrialOutcome("complete", "", (0.5, 0.25)))
    write_failure(folder, 0, ValueError("boom"))
    unsent.FILE.write(folder, unsent.Unsent("key", "run", {"tag": "value"}))


RECORDS = ("trials.json", "driver.json", "outcome.json", "failure-rank-0.json", "mlflow.json")


def _read_records(folder: Path) -> object:
    return (
        [asdict(row) for row in ledger.read(folder)],
        owner_file("driver.json").read(folder),
        OUTCOME.read(folder),
        read_failures(folder),
        unsent.load(folder, None, {}),
    )


def _seal_records(folder: Path) -> None:
    for name in RECORDS:
        _seal_json(name)(folder)


def _scores(folder: Path) -> None:
    pairs = PairCosines([0.5, 0.25, 0.75], [1.0, 0.0, 3.0])
    identity = ModelIdentity("local/x", "r")
    write_score(
        folder,
        TaskScore(
            "STS12", "STS", "b", "spearman", "d", "2", identity, 71.25, 1.5, {"std": 0.2}, None, 60.0, pairs
        ),
    )


TASK_FILES = {
    "tasks.yaml": "own: {kind: sts, file: a.tsv}\nmine: &m {kind: classification, train: t.csv, test: t.csv}\n"
    "order: {kind: reranking, file: r.jsonl}\nfind: {kind: retrieval, folder: beir}\nagain: *m\n",
    "a.tsv": "sentence1\tsentence2\tscore\nx y\ty\t1\nx\tz\t2.5\n",
    "t.csv": 'text,label\n"a, b",1\nc,2\n',
    "r.jsonl": '{"query": "x", "positive": ["y"], "negative": ["z", "w"]}\n',
    "beir/corpus.jsonl": '{"_id": "d1", "title": "t", "text": "x"}\n{"_id": "d2", "text": "y"}\n',
    "beir/queries.jsonl": '{"_id": "q1", "text": "x"}\n',
    "beir/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}


def _write_all(files: dict[str, str]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")

    return make


CONFIGURATION = {
    "mine.yaml": "extends: other.yaml\nmodel: {max_tokens: 32, dropout: 0.1}\ntrain: &t\n  steps: 100\n  lr: 1e-4\n"
    "objective: {name: vicreg, covariance: 1}\ndata: {shards: corpus}\nevaluate: {sts: [x.tsv, y.tsv]}\n",
    "other.yaml": "extends: base.yaml\nseed: 3\nrun: {name: x}\n",
}
SWEEP = {
    "sweep.yaml": "extends: base.yaml\ntrain: {steps: 100}\nevaluate: {sts: x.tsv}\nsweep: {trials: 4, search: tpe}\n"
    "space:\n  train.lr: {loguniform: [1e-5, 1e-3]}\n  objective.name: {choice: [vicreg, byol]}\n"
    "  objective.covariance: {uniform: [1, 3], when: {objective.name: vicreg}}\n",
}
LINES = {"metrics.jsonl": "".join(
    json.dumps({"step": step, "loss": 1 / step, "dev/sts": 70.5, "lr": None}) + "\n" for step in range(1, 20)
)}  # fmt: skip


def _read_lines(folder: Path) -> object:
    lines = metrics_file.read(folder / "metrics.jsonl")
    best = max(
        (float(line.get("dev/sts", 0.0)) for line in metrics_file.evaluations(folder / "metrics.jsonl")),
        default=0.0,
    )
    return lines, best, metrics_file.cut_back(folder / "metrics.jsonl", 5)


WEBDATASET = {
    "a.txt": b"the river follows the house\nthe letter crosses the garden\n",
    "a.json": b'{"text": ["the first", "the second"]}',
    "b.jsonl": b'{"text": "the third"}\n{"text": "the fourth"}\n',
    "c.txt.gz": gzip.compress(b"the fifth\n", mtime=0),
    "d.json.zst": zstandard.compress(b'{"text": "the sixth"}'),
    "d.cls": b"7",
}


def _webdataset(folder: Path) -> None:
    """As other programs write one: formats of headers that we never write, a folder, a link, and what is left out."""
    with tarfile.open(folder / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in WEBDATASET.items():
            member = tarfile.TarInfo(f"folder/{name}")
            member.size, member.pax_headers = len(content), {"comment": "é"} if name == "b.jsonl" else {}
            tar.addfile(member, io.BytesIO(content))
        for kind, linked in (
            (tarfile.DIRTYPE, ""),
            (tarfile.SYMTYPE, "a.txt"),
            (tarfile.LNKTYPE, "folder/a.json"),
        ):
            member = tarfile.TarInfo(f"folder/{kind.decode()}.{linked.rpartition('.')[2]}")
            member.type, member.linkname = kind, linked
            tar.addfile(member)


def _read_webdataset(folder: Path) -> object:
    return repr(list(input_splits([str(folder / "x.tar")], "text", 1 << 20))).replace(str(folder), "")


PARSERS = {
    parser.name: parser
    for parser in (
        Parser("index", _corpus, (INDEX,), lambda folder: read_index(Store(folder)), _seal_json(INDEX)),
        Parser("block rows", _block_rows, (BLOCKS, INDEX), _read_block_rows, _seal_rows(".")),
        Parser("blocks", _corpus, (SHARD,), _read_blocks, _seal_blocks),
        Parser("packed blocks", lambda folder: _corpus(folder, zst=True), (SHARD,), _read_blocks, _seal_blocks),
        Parser("token index", _tokens, (f"{TOKENS}/{INDEX}",), _read_tokens, _seal_json(f"{TOKENS}/{INDEX}")),
        Parser("token rows", _token_rows, (f"{TOKENS}/{BLOCKS}", f"{TOKENS}/{INDEX}"), _read_tokens, _seal_rows(TOKENS)),
        Parser("tokens", _tokens, (f"{TOKENS}/shard-000000.tokens",), _read_tokens, _seal_tokens),
        Parser("manifest", _checkpoint, (NAME,), directory.read_listed, _seal_json(NAME)),
        Parser("safetensors", _checkpoint, ("rank-00000.safetensors", BUFFERS), _read_checkpoint, _seal_checkpoint),
        Parser("records", _records, RECORDS, _read_records, _seal_records),
        Parser("scores", _scores, ("STS12.json",), read_scores, _seal_json("STS12.json")),
        Parser("tasks", _write_all(TASK_FILES), tuple(TASK_FILES), local_tasks),
        Parser("configuration", _write_all(CONFIGURATION), tuple(CONFIGURATION), lambda f: load(str(f / "mine.yaml"))),
        Parser("sweep", _write_all(SWEEP), tuple(SWEEP), lambda f: load_sweep(str(f / "sweep.yaml"))),
        Parser("webdataset", _webdataset, ("x.tar",), _read_webdataset),
        Parser("lines", _write_all(LINES), tuple(LINES), _read_lines),
    )
}  # fmt: skip
