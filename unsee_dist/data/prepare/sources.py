"""Sources: the inputs of `unsee prepare`, cut into splits that processes clean in parallel.

    *.txt, or any other text         a sentence a line, UTF-8; each line is a document of one sentence
    *.jsonl, .ndjson, .jsonlines, .jl  an object a line; its field holds a sentence, or a document: a list of them
    *.csv, *.tsv, *.parquet          a column
    *.tar                            a WebDataset shard: its members .txt, .json, .jsonl (tars.py)
    any of them as *.gz, *.zst       except parquet, which compresses by itself
    part-00000, *.001, *.json        what their content says (formats.py)
    a folder, or a glob              all such files in it, by name (folders.py); corpus-{000..031}.tar: braces are expanded
    s3://..., https://..., hf://...  any of the files, through fsspec
    dataset:OWNER/NAME,CONFIG#SPLIT  a Hugging Face dataset, streamed
    -, <(zcat f), a FIFO             read once, into the work folder (spool.py)
    installed-docs                   the docstrings of the installed Python packages (installed_docs.py)

Every mistake in an input is a UserError that names the file and what to write instead.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import fsspec
import xxhash
from braceexpand import braceexpand

from unsee_dist.data.prepare import columns, documents, folders, formats, installed_docs, opening, tars
from unsee_dist.data.prepare.bad_records import BadRecords
from unsee_dist.data.prepare.documents import InputSplit
from unsee_dist.data.prepare.folders import LeaveOut
from unsee_dist.data.prepare.formats import FORMATS
from unsee_dist.data.prepare.opening import Advance, InputDescription
from unsee_dist.data.prepare.spool import STDIN
from unsee_dist.errors import UserError
from unsee_dist.files.remote import is_remote

INSTALLED_DOCS = "installed-docs"
DATASET = "dataset:"


def resolve(
    inputs: Sequence[str], field: str | None = None, leave_out: LeaveOut = lambda *_: None
) -> list[str]:
    """The inputs with folders and globs replaced by their files, sorted by name.

    leave_out: called with every file and folder that is not read, and the reason. field: see folders.files_below.
    """
    return [name for given in inputs for one in _braces(given) for name in _resolve(one, field, leave_out)]


def describe(name: str) -> InputDescription:
    """The name (without the folder), size and digest of an input."""
    if name == INSTALLED_DOCS:
        return installed_docs.describe()
    if name.startswith(DATASET):
        return InputDescription(name, 0, xxhash.xxh3_128_hexdigest(name.encode()))
    return opening.describe(name)


def input_splits(
    names: Sequence[str],
    field: str,
    split_bytes: int,
    advance: Advance = lambda _: None,
    bad: BadRecords | None = None,
) -> Iterator[InputSplit]:
    """All inputs in order, in splits that depend on the inputs and split_bytes alone. bad: absent = stop."""
    bad = bad or BadRecords()
    for name in names:
        if name == INSTALLED_DOCS:
            docstrings = (sentences for _, sentences in installed_docs.objects(advance))
            yield from documents.cut_documents(name, docstrings, split_bytes)
        elif name.startswith(DATASET):
            rows = columns.read_dataset(name, field, bad)
            yield from documents.cut_documents(name, rows, split_bytes, bad)
        else:
            yield from _of_file(name, field, split_bytes, advance, bad)


def together(splits: Iterable[InputSplit], least_bytes: int) -> Iterator[list[InputSplit]]:
    """Neighbours in groups of at least least_bytes, but for the last: a hundred thousand small files are few tasks."""
    group: list[InputSplit] = []
    size = 0
    for split in splits:
        group.append(split)
        size += split.size()
        if size >= least_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def _of_file(
    name: str, field: str, split_bytes: int, advance: Advance, bad: BadRecords
) -> Iterator[InputSplit]:
    if why := formats.foreign(name):
        raise UserError(f"{name} cannot be read: {why}. {_unpack(name)}")
    kind = formats.by_name(name) or _by_content(name, field)
    if kind == formats.PARQUET:
        return documents.cut_documents(
            name, columns.read_parquet(name, field, advance, bad), split_bytes, bad
        )
    if kind == formats.TAR:
        return documents.cut_documents(name, tars.read_tar(name, field, advance, bad), split_bytes, bad)
    chunks = opening.unpacked(name, advance)
    if kind in (formats.CSV, formats.TSV):
        separator = "," if kind == formats.CSV else "\t"
        column = columns.read_csv(name, chunks, separator, field, bad)
        return documents.cut_documents(name, column, split_bytes, bad)
    return documents.cut_lines(name, chunks, kind, split_bytes)


def _by_content(name: str, field: str) -> str:
    head = opening.first_bytes(opening.unpacked(name, lambda _: None))
    kind = formats.by_content(head)
    if kind == formats.TEXT and (ending := formats.table_of(head, field)):
        raise UserError(
            f"{name} is a table: its first line has the column {field!r}. Give it a name that ends in {ending}."
        )
    if kind == formats.TEXT and (sentence := formats.mostly_records(name, head)):
        raise UserError(sentence)
    if kind == formats.TEXT and formats.last_suffix(name) == ".json":
        command = formats.command_for_texts(head)
        remedy = f"Write `{command}`, and give NEW.jsonl." if command else FORMATS
        raise UserError(f"{name} has no JSON object in its first line. {remedy}")
    if kind == formats.JSON:
        raise UserError(formats.json_value(name, head))
    return kind


def _unpack(name: str) -> str:
    return "Unpack it first." if ".tar" in formats.suffixes(name) else FORMATS


def _braces(given: str) -> list[str]:
    """`a-{0..2}` as a-0, a-1, a-2; a name that exists, or that has braces of another kind, stays as it is."""
    if "{" not in given or Path(given).exists():
        return [given]
    try:
        return list(braceexpand(given))
    except ValueError:  # braces that are not closed
        return [given]


def _resolve(given: str, field: str | None, leave_out: LeaveOut) -> list[str]:
    if given in (INSTALLED_DOCS, STDIN) or given.startswith(DATASET):
        return [given]
    if is_remote(given):
        return _resolve_remote(given) if glob.has_magic(given.partition("?")[0]) else [given]
    if Path(given).is_dir():
        return _resolve_folder(given, field, leave_out)
    if not Path(given).exists() and glob.has_magic(given):
        return _resolve_glob(given, leave_out)
    return [given]


def _resolve_folder(given: str, field: str | None, leave_out: LeaveOut) -> list[str]:
    reasons: dict[str, str] = {}
    files = folders.files_below(given, field, reasons.__setitem__)
    if not files:
        first = next((f" It has {path} ({why})." for path, why in reasons.items()), "")
        raise UserError(f"{given} is a folder without a file to read.{first} {FORMATS}")
    above = os.path.dirname(os.path.abspath(given))
    for path, why in reasons.items():
        leave_out(os.path.relpath(path, above), why)  # not where this machine has it: the index travels
    return files


def _resolve_glob(given: str, leave_out: LeaveOut) -> list[str]:
    files = []
    for name in sorted(glob.glob(given, recursive=True)):
        why = folders.not_a_file(name)
        if why == folders.FOLDER and "**" in given:
            continue  # what is in it is matched, too
        if why:
            leave_out(Path(name).name, why)
        else:
            files.append(name)
    if not files:
        raise UserError(f"{given} matches no file. {FORMATS}")
    return files


def _resolve_remote(given: str) -> list[str]:
    with opening.errors_as_sentences(given):
        files = sorted(str(file.full_name) for file in fsspec.open_files(given))
    if not files:
        raise UserError(f"{given} matches no file. {FORMATS}")
    return files
