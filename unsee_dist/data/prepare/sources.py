"""Sources: the inputs of `unsee prepare`, cut into splits that processes clean in parallel.

    *.txt, or any other text         a sentence a line, UTF-8; each line is a document of one sentence
    *.jsonl                          an object a line; its field holds a sentence, or a document: a list of them
    *.csv, *.tsv, *.parquet          a column
    *.tar                            a WebDataset shard: its members .txt, .json, .jsonl (tars.py)
    any of them as *.gz, *.zst       except parquet, which compresses by itself
    a folder, or a glob              all such files in it, by name; corpus-{000..031}.tar: braces are expanded
    s3://..., https://..., hf://...  any of the files, through fsspec
    dataset:OWNER/NAME,CONFIG#SPLIT  a Hugging Face dataset, streamed
    -                                text from standard input
    installed-docs                   the docstrings of the installed Python packages (installed_docs.py)

Every mistake in an input is a ValueError that names the file and what to write instead.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import fsspec
import xxhash
from braceexpand import braceexpand

from unsee_dist.data.prepare import documents, installed_docs, opening, tars
from unsee_dist.data.prepare.documents import InputSplit
from unsee_dist.data.prepare.opening import FORMATS, Advance, InputDescription
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


def describe(name: str) -> InputDescription:
    """The name (without the folder), size and digest of an input."""
    if name == INSTALLED_DOCS:
        return installed_docs.describe()
    if name.startswith(DATASET):
        return InputDescription(name, 0, xxhash.xxh3_128_hexdigest(name.encode()))
    return opening.describe(name)


def spool(text: IO[bytes], folder: Path | None) -> InputDescription:
    """Describe the content of standard input, and keep it in the folder as SPOOLED."""
    digest, size = xxhash.xxh3_128(), 0
    with (folder / f"{SPOOLED}.partial" if folder else Path(os.devnull)).open("wb") as file:
        while chunk := text.read(opening.CHUNK_BYTES):
            digest.update(chunk)
            size += file.write(chunk)
    if folder:
        Path(file.name).replace(folder / SPOOLED)
    return InputDescription(STDIN, size, digest.hexdigest())


def input_splits(
    names: Sequence[str], field: str, split_bytes: int, advance: Advance = lambda _: None
) -> Iterator[InputSplit]:
    """All inputs in order, in splits that depend on the inputs and split_bytes alone."""
    for name in names:
        if name == INSTALLED_DOCS:
            docstrings = (sentences for _, sentences in installed_docs.objects(advance))
            yield from documents.cut_documents(name, docstrings, split_bytes)
        elif name.startswith(DATASET):
            yield from documents.cut_documents(name, documents.read_dataset(name, field), split_bytes)
        else:
            yield from _of_file(name, field, split_bytes, advance)


def _of_file(name: str, field: str, split_bytes: int, advance: Advance) -> Iterator[InputSplit]:
    kind = _kind(name)
    if kind in _STRUCTURED:
        raise UserError(f"{name} cannot be read: {kind} is not a format of `unsee prepare`. {FORMATS}")
    if kind == ".parquet":
        return documents.cut_documents(name, documents.read_parquet(name, field, advance), split_bytes)
    if kind == ".tar":
        if opening.suffixes(name)[-1] != ".tar":
            raise UserError(
                f"{name} cannot be read: the members of a compressed tar cannot be listed. Unpack it first."
            )
        return documents.cut_documents(name, tars.read_tar(name, field, advance), split_bytes)
    chunks = opening.unpacked(name, advance)
    if kind in (".csv", ".tsv"):
        column = documents.read_csv(name, chunks, "," if kind == ".csv" else "\t", field)
        return documents.cut_documents(name, column, split_bytes)
    return documents.cut_lines(name, chunks, kind == ".jsonl", split_bytes)


def _kind(name: str) -> str:
    endings = opening.suffixes(name)
    if endings and endings[-1] in PACKED:
        endings.pop()
    return endings[-1] if endings else ""


def _braces(given: str) -> list[str]:
    """`a-{0..2}` as a-0, a-1, a-2; a name that exists, or that has braces of another kind, stays as it is."""
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
        paths = (str(path) for path in Path(given).rglob("*") if path.is_file())
        files = sorted(name for name in paths if _kind(name) in _KINDS)
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
