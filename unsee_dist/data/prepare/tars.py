"""Documents of WebDataset tars that other programs wrote, read with webdataset's own iteration.

    NAME.txt      a sentence a line; each line is a document of one sentence
    NAME.json     an object; its field holds a sentence, or a document: a list of them
    NAME.jsonl    such an object a line
    any as .gz    or .zst: decompressed first

Other members (images, classes, `__index__.json`, hidden files) are ignored and counted. webdataset stops without an error at
a damaged header or the end of a cut file, with half of the samples: here the tar is first read header by header, and must
reach its end mark. It leaves links out, which tar writes for a file with two names: those are read here.
"""

from __future__ import annotations

import codecs
import itertools
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO

from unsee_dist.data.prepare import opening
from unsee_dist.data.prepare.bad_records import BadRecords
from unsee_dist.data.prepare.documents import InputSplit, documents_of
from unsee_dist.data.prepare.encoding import wide_encoding
from unsee_dist.data.prepare.fields import document_from_json
from unsee_dist.data.prepare.formats import HEAD_BYTES, JSONL, by_name
from unsee_dist.data.prepare.opening import Advance, Decompressor
from unsee_dist.errors import UserError

_META = re.compile(r"__[^/]*__")  # metadata of webdataset
KINDS = (".txt", ".json", ".jsonl")
SMALL_BYTES, MOST_TIMES = 64 << 20, 50  # of what a packed member may become
REMEDY = "Copy it again, or give the other files without it."
CONVERT = "Unpack the tar, convert its members with iconv, and give them as files."


def read_tar(name: str, field: str, advance: Advance, bad: BadRecords | None = None) -> Iterator[list[str]]:
    """The documents of a tar's members, in order. UserError names the tar, and the damaged member where there is one.

    bad: absent = stop at the first bad record.
    """
    from webdataset.tariterators import tar_file_iterator  # imports torch: 1.4 s for those who read tars

    with opening.opened(name) as file:
        passed_by = check_whole(name, file)
        bad = bad or BadRecords()
        ignored: Counter[str] = Counter()
        read = 0
        file.seek(0)
        members = (
            (str(each["fname"]), bytes(each["data"])) for each in tar_file_iterator(file, skip_meta=None)
        )
        for path, data in itertools.chain(members, _links(name, file, passed_by, bad)):
            advance(len(data))
            kind = _kind(path)
            if kind is None:
                ignored[PurePosixPath(path).suffix or path] += 1
                bad.ignore_member()
                continue
            read += 1
            yield from _of_member(f"{name} member {path}", kind, path, data, field, bad)
        if not read:
            present = ", ".join(sorted(ignored)) or "nothing"
            raise UserError(f"{name} has no member {', '.join(KINDS)} (it has {present}). Give other tars.")


def _links(
    name: str, file: IO[bytes], members: Sequence[tarfile.TarInfo], bad: BadRecords
) -> Iterator[tuple[str, bytes]]:
    """Name and content of the links to text among members; the others are counted."""
    file.seek(0)  # a generator begins when webdataset has come to the end
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in members:
            if not (member.islnk() or member.issym()) or _kind(member.name) is None:
                bad.ignore_member()
                continue
            try:
                content = tar.extractfile(member.name)
            except (KeyError, RecursionError):  # nothing by that name, or links in a ring
                content = None
            if content is None:
                where = f"{name} member {member.name}"
                bad.add(f"{where} is a link to {member.linkname}, which is not a file of this tar", REMEDY)
            else:
                yield member.name, content.read()


def check_whole(name: str, file: IO[bytes]) -> list[tarfile.TarInfo]:
    """The members that webdataset's iteration passes by, without the folders. UserError when the headers of a tar do not
    lead to its end, or when it ends in the middle."""
    passed_by = []
    size = file.seek(0, 2)
    file.seek(0)
    end, last = 0, ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                last = member.name
                if member.issparse() and member.size > _most_bytes(size):
                    raise ValueError(f"a file with holes of {member.size} bytes")
                if not member.isdir() and not (member.isreg() and not _META.fullmatch(member.name)):
                    passed_by.append(member)
                end = tar.offset  # of the next header, also after a sparse file
    except (
        tarfile.TarError,
        EOFError,
        ValueError,
        OverflowError,
    ) as error:  # ValueError: of a map of holes that is no numbers; OverflowError: of a length beyond 64 bits
        place = f"after its member {last}, at byte {end}" if last else "at its start, or is not a tar"
        raise UserError(f"{name} is damaged {place} ({error}). {REMEDY}") from error
    if end > size:
        raise UserError(
            f"{name} ends in the middle of its member {last}: the file is cut off at byte {size}. {REMEDY}"
        )
    file.seek(end)
    rest = file.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise UserError(
            f"{name} ends without its end mark after {last or 'no member'}: the file is cut off. {REMEDY}"
        )
    while rest:
        if rest.count(0) != len(rest):
            after = f"after its member {last}" if last else "at its start"
            raise UserError(
                f"{name} is damaged {after}, at byte {end}: neither a header nor the end mark. {REMEDY}"
            )
        rest = file.read(1 << 20)
    return passed_by


def _kind(path: str) -> str | None:
    """.txt, .json or .jsonl; None for a member that is ignored."""
    name = PurePosixPath(path).name.lower()
    if name.startswith((".", "__")):
        return None
    if by_name(name) == JSONL:  # also .ndjson and others
        return ".jsonl"
    ending = PurePosixPath(name.removesuffix(".gz").removesuffix(".zst")).suffix
    return ending if ending in KINDS else None


def _most_bytes(packed: int) -> int:
    """That so many packed bytes may become: text packs into a tenth, and a few kB that become gigabytes are not text."""
    return max(SMALL_BYTES, MOST_TIMES * packed)


def _unpacked(where: str, data: bytes, start: Callable[[], Decompressor]) -> bytes:
    """All members or frames. UserError, by its cause: what opening.decompressed finds; MemoryError: it is more than _most_bytes."""
    parts: list[bytes] = []
    size, most = 0, _most_bytes(len(data))
    for part in opening.decompressed(where, iter([data]), start):
        parts.append(part)
        size += len(part)
        if size > most:
            raise MemoryError(
                f"it becomes more than {most >> 20} MiB, which no text of {len(data)} bytes does"
            )
    return b"".join(parts)


def _of_member(
    where: str, kind: str, path: str, data: bytes, field: str, bad: BadRecords
) -> Iterator[list[str]]:
    if path.lower().endswith((".gz", ".zst")):
        try:
            data = _unpacked(
                where, data, opening.of_gzip if path.lower().endswith(".gz") else opening.of_zstd
            )
        except (UserError, MemoryError) as error:
            why = error if isinstance(error, MemoryError) else error.__cause__ or "it ends in the middle"
            bad.add(f"{where} cannot be decompressed ({why})", REMEDY)
            return
    if wide := wide_encoding(data[:HEAD_BYTES]):
        bad.add(f"{where} is {wide[0]} text ({wide[1]}), and UTF-8 is read", CONVERT)
        return
    data = data.removeprefix(codecs.BOM_UTF8)
    if kind == ".json":
        document = _json_member(where, data, field, bad)
        yield from [] if document is None else [document]
        return
    split = InputSplit(where, [], data, json=kind == ".jsonl")
    yield from documents_of(split, field, bad=bad)


def _json_member(where: str, data: bytes, field: str, bad: BadRecords) -> list[str] | None:
    try:
        return document_from_json(where, data.decode("utf-8"), field, bad)
    except UnicodeDecodeError as error:
        bad.add(f"{where} is not UTF-8 text (byte {error.start})", REMEDY)
        return None
