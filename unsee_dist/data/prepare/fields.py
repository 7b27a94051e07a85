"""Fields: the text of a record with several values, by the name of its field."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from unsee_dist.data.prepare.bad_records import BadRecords
from unsee_dist.data.prepare.clean import is_record
from unsee_dist.data.prepare.formats import AS_JSON, TEXT_A_LINE, WITHOUT_COMMAS, is_json_line

ONE_A_LINE = "Give one JSON object a line."
_HALF = re.compile("[\ud800-\udfff]")  # a surrogate alone: JSON can spell it, UTF-8 cannot
SHOWN = 20  # names of fields in a sentence


def missing(where: str, field: str, record: Mapping[str, object]) -> tuple[str, str] | None:
    """What is wrong with a record without the field, and the remedy; None when it has it."""
    if field in record:
        return None
    return f"{where} has no field {field!r} (it has {_listed(record)})", hint(field, record)


def hint(field: str, record: Mapping[str, object]) -> str:
    """The --field to write: one that holds text, best of a similar name."""
    fitting = [name for name, value in record.items() if _fits(value)]
    near = get_close_matches(field, fitting, 1) or sorted(fitting, key=lambda name: -_length(record[name]))
    return (
        f"Write --field {shlex.quote(near[0])}."
        if near
        else "None of its fields holds text: give another file."
    )


def document_from_json(where: str, line: str, field: str, bad: BadRecords) -> list[str] | None:
    """The document in one line of jsonl; None of a bad record that is skipped."""
    try:
        value = json.loads(line.lstrip("\ufeff"))
    except RecursionError:
        bad.add(f"{where} is JSON that is nested too deep", "Correct it.")
        return None
    except ValueError as error:
        bad.add(f"{where} is not JSON ({error})", _json_remedy(line))
        return None
    if not isinstance(value, dict):
        bad.add(f"{where} is a JSON {type(value).__name__}, not an object", _remedy_of(value))
        return None
    if wrong := missing(where, field, value):
        bad.add(*wrong)
        return None
    if line.count(f'"{field}"') > 1 and _is_twice(line, field):
        bad.add(f"{where} has the field {field!r} twice", "Rename one.")
        return None
    return document(where, field, value, bad)


def _remedy_of(value: object) -> str:
    """The command that makes objects of lines with such a value, where there is one."""
    texts = value if isinstance(value, list) else [value]
    if texts and all(isinstance(each, str) for each in texts):
        return f"Write `{TEXT_A_LINE}`, and give NEW.jsonl."
    if texts and all(isinstance(each, dict) for each in texts):
        return "Write `jq -c '.[]' FILE > NEW.jsonl`, and give NEW.jsonl."
    return ONE_A_LINE


def document(where: str, field: str, record: Mapping[str, object], bad: BadRecords) -> list[str] | None:
    """The document in a field of a record; None of a bad record that is skipped."""
    value = record[field]
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list) and all(isinstance(sentence, str) for sentence in texts):
        if half := next(filter(None, map(_HALF.search, texts)), None):
            code = f"\\u{ord(half[0]):04x}"
            bad.add(
                f"{where}: field {field!r} has half of a character ({code}), which is not text", "Correct it."
            )
            return None
        return texts
    others = {name: each for name, each in record.items() if name != field}
    remedy = hint(field, others) if any(map(_fits, others.values())) else "Correct it."
    holds = "null" if value is None else type(value).__name__
    if isinstance(value, list):
        holds = next(type(each).__name__ for each in value if not isinstance(each, str)) + " in its list"
    bad.add(f"{where}: field {field!r} must hold a string or a list of strings, and holds {holds}", remedy)
    return None


def _is_twice(line: str, field: str) -> bool:
    """Whether an object of a line has a key twice: python takes the last, in silence."""
    keys: list[str] = []

    def keep(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys[:] = [name for name, _ in pairs]  # the object of the line itself comes last
        return dict(pairs)

    json.loads(line.lstrip("\ufeff"), object_pairs_hook=keep)
    return keys.count(field) > 1


def _json_remedy(line: str) -> str:
    """The command that makes JSON of such lines, where there is one."""
    line = line.strip()
    if line.endswith(",") and is_json_line(line[:-1].encode()):
        return f"Write `{WITHOUT_COMMAS}`, and give NEW.jsonl."
    if is_record(line) and line.startswith("{'"):
        return f"Write `{AS_JSON}`, and give NEW.jsonl."
    return ONE_A_LINE


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return (", ".join(listed[:SHOWN]) or "none") + more


def _fits(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(isinstance(text, str) and text and not text.isspace() for text in texts)


def _length(value: object) -> int:
    texts = value if isinstance(value, list) else [value]
    return sum(len(text) for text in texts if isinstance(text, str) and not text.replace(".", "").isdigit())
