"""Sources: what `unsee prepare` reads, and how it is cut into pieces that processes clean side by side.

    *.txt, or any other text         a sentence a line, UTF-8; each line is a document of one sentence
    *.jsonl                          an object a line; its field holds a sentence, or a document: a list of them
    *.csv, *.tsv, *.parquet          a column
    *.tar                            a WebDataset shard: its members .txt, .json, .jsonl (tars.py)
    any of them as *.gz, *.zst       but parquet, which packs by itself
    a folder, or a glob              all such files in it, by name; corpus-{000..031}.tar: braces are written out
    s3://..., https://..., hf://...  any of the files, through fsspec
    dataset:OWNER/NAME,CONFIG#SPLIT  a Hugging Face dataset, streamed
    -                                text from standard input
    installed-docs                   the docstrings of the installed Python packages (installed_docs.py)

Every way an input can be wrong is a ValueError that names the file and says what to write instead.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import fsspec
import xxhash
from braceexpand import braceexpand

from unsee_dist.data.prepare import documents, installed_docs, opening, tars
from unsee_dist.data.prepare.documents import InputSplit
from unsee_dist.data.prepare.opening import FORMATS, Advance
from unsee_dist.errors import UserError
from unsee_dist.files.remote import is_remote

INSTALLED_DOCS = "installed-docs"
STDIN = "-"
SPOOLED = "standard-input"
DATASET = "dataset:"
PACKED = (".gz", ".zst")
_KINDS = {".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".tar"}  # what a folder is searched for
_STRUCTURED = {".json", ".arrow", ".zip", ".bz2", ".xz", ".html", ".xml"}


def resolve(inputs: Sequence[str]) -> list[str]:
    """The inputs with folders and globs replaced by their files, sorted by name."""
    return [name for given in inputs for one in _braces(given) for name in _resolve(one)]


def describe(name: str) -> dict[str, Any]:
    """What an input is: its name without the folder, its bytes, and a digest."""
    if name == INSTALLED_DOCS:
        return installed_docs.describe()
    if name.startswith(DATASET):
        return {"name": name, "bytes": 0, "xxh3": xxhash.xxh3_128_hexdigest(name.encode())}
    return opening.describe(name)


def spool(text: IO[bytes], folder: Path | None) -> dict[str, Any]:
    """Describe what standard input holds, and keep it in the folder as SPOOLED."""
    digest, size = xxhash.xxh3_128(), 0
    with (folder / f"{SPOOLED}.partial" if folder else Path(os.devnull)).open("wb") as file:
        while chunk := text.read(opening.CHUNK_BYTES):
            digest.update(chunk)
            size += file.write(chunk)
    if folder:
        Path(file.name).replace(folder / SPOOLED)
    return {"name": STDIN, "bytes": size, "xxh3": digest.hexdigest()}


def input_splits(
    names: Sequence[str], field: str, piece_bytes: int, advance: Advance = lambda _: None
) -> Iterator[InputSplit]:
    """All inputs in order, in pieces that depend on the inputs and piece_bytes alone."""
    for name in names:
        if name == INSTALLED_DOCS:
            found = (sentences for _, sentences in installed_docs.objects(advance))
            yield from documents.cut_documents(name, found, piece_bytes)
        elif name.startswith(DATASET):
            yield from documents.cut_documents(name, documents.of_dataset(name, field), piece_bytes)
        else:
            yield from _of_file(name, field, piece_bytes, advance)


def _of_file(name: str, field: str, piece_bytes: int, advance: Advance) -> Iterator[InputSplit]:
    kind = _kind(name)
    if kind in _STRUCTURED:
        raise UserError(f"{name} cannot be read: {kind} is not a format of `unsee prepare`. {FORMATS}")
    if kind == ".parquet":
        return documents.cut_documents(name, documents.of_parquet(name, field, advance), piece_bytes)
    if kind == ".tar":
        if opening.suffixes(name)[-1] != ".tar":
            raise UserError(
                f"{name} cannot be read: a packed tar has no index of its members. Unpack it first."
            )
        return documents.cut_documents(name, tars.of_tar(name, field, advance), piece_bytes)
    chunks = opening.unpacked(name, advance)
    if kind in (".csv", ".tsv"):
        column = documents.of_csv(name, chunks, "," if kind == ".csv" else "\t", field)
        return documents.cut_documents(name, column, piece_bytes)
    return documents.cut_lines(name, chunks, kind == ".jsonl", piece_bytes)


def _kind(name: str) -> str:
    endings = opening.suffixes(name)
    if endings and endings[-1] in PACKED:
        endings.pop()
    return endings[-1] if endings else ""


def _braces(given: str) -> list[str]:
    """`a-{0..2}` as the names it stands for; a name that is there as it stands, or has braces of another kind, stays."""
    if "{" not in given or Path(given).exists():
        return [given]
    try:
        return list(braceexpand(given))
    except ValueError:  # braces that are not closed
        return [given]


def _resolve(given: str) -> list[str]:
    if given in (INSTALLED_DOCS, STDIN) or given.startswith(DATASET):
        return [given]
    if is_remote(given):
        return _resolve_remote(given) if glob.has_magic(given.partition("?")[0]) else [given]
    if Path(given).is_dir():
        found = (str(path) for path in Path(given).rglob("*") if path.is_file())
        files = sorted(name for name in found if _kind(name) in _KINDS)
        if not files:
            raise UserError(f"{given} is a folder without a file to read. {FORMATS}")
        return files
    if not Path(given).exists() and glob.has_magic(given):
        files = sorted(name for name in glob.glob(given, recursive=True) if Path(name).is_file())
        if not files:
            raise UserError(f"{given} matches no file. {FORMATS}")
        return files
    return [given]


def _resolve_remote(given: str) -> list[str]:
    files = sorted(str(file.full_name) for file in fsspec.open_files(given))
    if not files:
        raise UserError(f"{given} matches no file. {FORMATS}")
    return files
