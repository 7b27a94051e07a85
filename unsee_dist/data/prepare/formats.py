"""Formats: what a file holds. Its name says it, or its first bytes where the name says nothing (part-00000, wiki_07, a pipe)."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from unsee_dist.data.prepare.clean import is_record, normalise
from unsee_dist.files.remote import is_remote

TEXT, JSONL, CSV, TSV, PARQUET, TAR = "text", "jsonl", "csv", "tsv", "parquet", "tar"
JSON = "one JSON value, not an object a line"  # none to read
FORMATS = (
    "Give UTF-8 text with a sentence a line (.txt), or .jsonl, .csv, .tsv, .parquet or .tar with --field; "
    "all but .parquet and .tar also as .gz or .zst."
)
# Commands that make .jsonl of what is nearly that: a comma after each object; objects as Python prints them.
WITHOUT_COMMAS = "sed 's/,[[:space:]]*$//' FILE > NEW.jsonl"
AS_JSON = (
    'python3 -c \'import ast, json, sys; [print(json.dumps(ast.literal_eval(line.strip(", \\r\\n"))))'
    " for line in sys.stdin if line.strip()]' < FILE > NEW.jsonl"
)
OF_TEXTS = "jq -c '.[] | {text: .}' FILE > NEW.jsonl"  # of a list of texts, or of lists of them
TEXT_A_LINE = "jq -c '{text: .}' FILE > NEW.jsonl"  # of a text a line, or a list of them. Not jq -r: it would cut at line ends
HEAD_BYTES = 1 << 16  # of a file, from which its content is guessed
PACKED = (".gz", ".zst")
_BY_SUFFIX = {
    ".txt": TEXT,
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines", ".jl"), JSONL),
    ".csv": CSV,
    ".tsv": TSV,
    ".parquet": PARQUET,
    ".tar": TAR,
}
_FOREIGN = frozenset(
    {
        *(".zip", ".7z", ".rar", ".bz2", ".xz", ".lz4", ".tgz", ".html", ".xml", ".pdf", ".docx", ".xlsx"),
        *(".arrow", ".feather", ".orc", ".avro"),
    }
)
LOOKS_LIKE = 8  # lines alike before a text is taken for a table
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MAGIC = {
    GZIP: "gzip data: name it .gz",
    ZSTD: "zstd data: name it .zst",
    b"PAR1": "a parquet file: name it .parquet",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"%PDF": "a PDF",
    b"ARROW1": "an Arrow file",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04\x95", b"\x80\x05\x95"), "a pickle of Python"),
    b"\x93NUMPY": "an array of NumPy",
    b"\x89HDF": "an HDF5 file",
    b"Obj\x01": "an Avro file",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\xd0\xcf\x11\xe0": "an old document of Word, Excel or PowerPoint",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program",
}
# A value over several lines: {"key": or [{"key": and no line end where jsonl has one.
_OPENS_OBJECTS = re.compile(rb'\s*(\[\s*)*\{\s*"(?:[^"\\]|\\.)*"\s*:')
_OPENS_JSON = re.compile(rb'\s*(\{\s*"(?:[^"\\]|\\.)*"\s*:|\[\s*(\{|\[|"(?:[^"\\]|\\.)*"\s*[,\]]))')

# A list of texts, or of lists of them.
_OPENS_TEXTS = re.compile(r'\[\s*(\[\s*)?"')


def printable(name: str) -> str:
    """A file's name as UTF-8 can hold it: bytes that are none as \\xff."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def suffixes(name: str) -> list[str]:
    """The name's suffixes in lower case, without a URL's query."""
    path = urlsplit(name).path if is_remote(name) else name
    base = path.rpartition("/")[2].lstrip(".")
    return [f".{part}" for part in base.lower().split(".")[1:]]


def by_name(name: str) -> str | None:
    """The format that a name says; None: it says nothing."""
    return _BY_SUFFIX.get(last_suffix(name))


def last_suffix(name: str) -> str:
    """The last suffix that is not a packing: ".json" of x.json.gz; "" of a name without one."""
    endings = suffixes(name)
    if endings and endings[-1] in PACKED:
        endings.pop()
    return endings[-1] if endings else ""


def foreign(name: str) -> str | None:
    """Why a file of this name is none for `unsee prepare`; None: it may be one."""
    ending = last_suffix(name)
    if ending in _FOREIGN:
        return f"{ending} is not a format of `unsee prepare`"
    if ending == ".tar" and suffixes(name)[-1] != ".tar":
        return "the members of a compressed tar cannot be listed"
    return None


def says_nothing(name: str) -> bool:
    """Whether a name has no suffix, a number as its suffix (part.001), or .json, which some use for jsonl."""
    ending = last_suffix(name)
    return not ending or ending[1:2].isdigit() or ending == ".json"


def magic(head: bytes) -> str | None:
    """What the first bytes of a file say that is not text; None: nothing."""
    if head[257:262] == b"ustar":
        return "a tar: name it .tar"
    return next((what for start, what in _MAGIC.items() if head.startswith(start)), None)


def by_content(head: bytes) -> str:
    """The format of unpacked bytes: JSONL, PARQUET, TAR, JSON, else TEXT."""
    if head.startswith(b"PAR1"):
        return PARQUET
    if head[257:262] == b"ustar":
        return TAR
    if is_json_line(head):
        return JSONL
    return JSON if _OPENS_JSON.match(head.removeprefix(b"\xef\xbb\xbf")) else TEXT


def table_of(head: bytes, field: str) -> str | None:
    """.csv or .tsv where the first line of a text is a header with this column, and others; else None."""
    line = re.split(b"[\r\n]", head.removeprefix(b"\xef\xbb\xbf"), maxsplit=1)[0].decode(errors="replace")
    for separator, ending in ((",", ".csv"), ("\t", ".tsv")):
        cells = [cell.strip().strip('"') for cell in line.split(separator)]
        if len(cells) > 1 and field in cells:
            return ending
    return None


def opens_objects(head: bytes) -> bool:
    """Whether these bytes begin a JSON object over several lines, or a list of objects: no text begins so."""
    return _OPENS_OBJECTS.match(head.removeprefix(b"\xef\xbb\xbf")) is not None


def json_value(name: str, head: bytes) -> str:
    """The sentence about a file of JSON that is not an object a line."""
    text = head.decode(errors="replace").removeprefix("\ufeff").lstrip()
    if text.startswith("["):
        command = OF_TEXTS if _OPENS_TEXTS.match(text) else "jq -c '.[]' FILE > NEW.jsonl"
    elif (end := _end_of_object(text)) is None or not text[end:].lstrip().startswith(","):
        command = "jq -c . FILE > NEW.jsonl"
    elif "\n" not in text[:end] and "\n" in text[end : end + 3]:
        return f"{name} has a comma after each JSON object. Write `{WITHOUT_COMMAS}`, and give NEW.jsonl."
    else:
        why = f"{name} has JSON objects with commas between them"
        return f"{why}. Write `sed -z 's/^/[/; s/,\\?[[:space:]]*$/]/' FILE | jq -c '.[]' > NEW.jsonl`, and give NEW.jsonl."
    return f"{name} is {JSON}. Write `{command}`, and give NEW.jsonl."


def _end_of_object(text: str) -> int | None:
    """Where the JSON value at the start of a text ends; None: it does not, or it is none."""
    try:
        return json.JSONDecoder().raw_decode(text)[1]
    except (ValueError, RecursionError):
        return None


def mostly_records(name: str, head: bytes) -> str | None:
    """The sentence about a text whose first lines are mostly records, objects of JSON or of Python; None: they are not."""
    text = head.decode(errors="replace").removeprefix("\ufeff")
    lines = [normalise(line) for line in re.split("[\r\n]+", text)]
    lines = [line for line in (lines[:-1] if len(head) >= HEAD_BYTES and len(lines) > 1 else lines) if line]
    records = [line for line in lines if is_record(line)]
    if 2 * len(records) <= len(lines):
        return None
    if sum(map(_is_list_of_texts, records)) * 2 > len(records):
        return f"most lines of {name} are JSON lists of texts. Write `{TEXT_A_LINE}`, and give NEW.jsonl."
    if sum(is_json_line(line.encode()) for line in records) * 2 > len(records):
        return (
            f"most lines of {name} are JSON objects, not sentences. Name the file .jsonl, and write --field with its key; "
            "--on-bad-record skip leaves the other lines out."
        )
    return (
        f"most lines of {name} are records such as {{'key': 'value'}} rather than sentences. Write them as JSON, an object a line: "
        f"`{AS_JSON}`, and give NEW.jsonl."
    )


def _is_list_of_texts(line: str) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def command_for_texts(head: bytes) -> str | None:
    """The command where the first line is a JSON string; else None."""
    line = re.split(b"[\r\n]", head.removeprefix(b"\xef\xbb\xbf").lstrip(), maxsplit=1)[0]
    try:
        return TEXT_A_LINE if isinstance(json.loads(line), str) else None
    except (ValueError, RecursionError):
        return None


def markup(head: bytes) -> str | None:
    """HTML or XML where a file begins as one; None: it is neither."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "XML" if start.startswith(b"<?xml") else None


def table_notice(name: str, head: bytes) -> str | None:
    """The notice about a text that looks like a table: the first lines have one number of tabs, or it has a header with
    "text" and as many commas in each line; None: it does not."""
    lines = [line for line in re.split(b"[\r\n]+", head) if line.strip()][
        : -1 if len(head) >= HEAD_BYTES else None
    ]
    if len(lines) < LOOKS_LIKE:
        return None
    tabs = {line.count(b"\t") for line in lines}
    if len(tabs) == 1 and tabs != {0}:
        return (
            f"{name}: each line has {1 + tabs.pop()} columns with a tab between them, and all of them are read as one sentence. "
            "Write `cut -f COLUMN FILE > NEW.txt` and give NEW.txt, or give it a header and the name .tsv."
        )
    commas = lines[0].count(b",")
    if table_of(head, "text") == ".csv" and all(line.count(b",") >= commas for line in lines):
        return f"{name}: its first line has the column 'text', and whole lines are read as sentences. Name it .csv."
    return None


def is_json_line(head: bytes) -> bool:
    """Whether the first line of these bytes is a JSON object, or may be the start of one that is longer than they are."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    line, *more = re.split(b"[\r\n]", text, maxsplit=1)
    if not line.startswith(b"{"):
        return False
    if not more and len(head) >= HEAD_BYTES:
        return _OPENS_JSON.match(line) is not None
    try:
        return isinstance(json.loads(line), dict)
    except RecursionError:
        return True
    except ValueError:
        return False


def first_object(head: bytes) -> dict[str, object] | None:
    """The object in the first line; None when there is none, or it cannot be read."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    try:
        value = json.loads(re.split(b"[\r\n]", text, maxsplit=1)[0])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
