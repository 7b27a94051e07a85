"""Encoding: text is UTF-8. What else a file is written in is named, with the command that converts it."""

from __future__ import annotations

import codecs
import shlex
import unicodedata

from unsee_dist.data.prepare.formats import FORMATS, last_suffix, magic, suffixes
from unsee_dist.errors import UserError

# The longer ones first: UTF-32's little-endian mark begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_WITHOUT_MARK = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
SAMPLE_BYTES = 1 << 12


def is_text(head: bytes) -> bool:
    """Whether the first bytes of a file may be those of UTF-8 text."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def check_text(name: str, head: bytes) -> None:
    """UserError when these first bytes of a file are no UTF-8 text, but in another encoding or of another format."""
    wide = wide_encoding(head)
    if wide is not None:
        encoding, why = wide
        new = "NEW" + (last_suffix(name) or ".txt")
        raise UserError(
            f"{name} is {encoding} text ({why}), and UTF-8 is read. Unpack it where it is packed, write "
            f"`iconv -f {encoding} -t UTF-8 {shlex.quote(name)} > {new}`, and give {new}."
        )
    what = None if is_text(head) else magic(head)
    if what is not None and what.endswith(tuple(suffixes(name)[-1:])):
        raise UserError(f"{name} is packed twice. Unpack it once.")
    if what is not None:
        raise UserError(f"{name} is not text, but {what}. {FORMATS}")


def wide_encoding(head: bytes) -> tuple[str, str] | None:
    """UTF-16 or UTF-32, and how these first bytes of a text show it; None: they are of neither."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding, "its byte order mark says so"
    if is_text(head) or magic(head) or b"\0" not in head[:SAMPLE_BYTES]:
        return None
    guess = _guess(head[:SAMPLE_BYTES])
    return None if guess is None else (guess, "without a byte order mark")


def _guess(sample: bytes) -> str | None:
    """The wide encoding in which all of the sample is text, or None. ASCII with some zeros in it is in none."""
    zeros = sample.count(0)
    if zeros < 0.4 * len(sample) and sample.isascii():
        return None
    return next((encoding for encoding in _WITHOUT_MARK if _is_text(sample, encoding)), None)


def _is_text(sample: bytes, encoding: str) -> bool:
    whole = len(sample) - len(sample) % 4
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        text = decoder.decode(sample[:whole] if len(sample) >= SAMPLE_BYTES else sample)
    except UnicodeDecodeError:
        return False
    if encoding.startswith("UTF-16") and 2 * sum(character < "\u0100" for character in text) < sample.count(
        0
    ):
        return False  # the zeros are not those of blanks, line ends and Latin letters
    # Not "other": control characters, surrogates, private use, unassigned.
    return bool(text) and all(
        character in "\t\r\n\f\ufeff"
        or unicodedata.category(character)[0] != "C"
        or character in "\u200b\u200d"
        for character in text
    )
