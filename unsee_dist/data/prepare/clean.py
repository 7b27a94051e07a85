"""Clean: one normal form for a sentence, and the reasons to drop one.

Normal form: control sequences of terminals, control and invisible characters removed, Unicode NFKC, runs of whitespace
(line ends among them) one space, none at the ends. `normalise` is idempotent, so what a block holds is what a second preparation would keep.
"""

from __future__ import annotations

import json
import re
import unicodedata

_OPENS_DATA = frozenset("{[(\"'<")
# The colours and cursor moves in the log of a terminal (ECMA-48: CSI, and OSC up to its end): without its ESC, "[31m" would stay.
_TERMINAL = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Control characters that are not whitespace; soft hyphen, zero-width space, word joiner, byte order mark; and
# surrogates, which JSON can spell ("\ud800") and UTF-8 cannot. Joiners stay: Persian and emoji need them.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ud800-\udfff]")

# Scripts that are written without blanks. A Chinese word has 1.5 to 2 characters, a Japanese one somewhat more; Thai, Lao,
# Khmer and Burmese ones have four to five, with the marks above and below.
_SHORT_WORDS = (
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LONG_WORDS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\ua9e0-\ua9ff\uaa60-\uaa7f"
_WITHOUT_BLANKS = re.compile(f"[{_SHORT_WORDS}{_LONG_WORDS}]")
_WORDS = re.compile(f"[{_SHORT_WORDS}]{{1,2}}|[{_LONG_WORDS}]{{1,4}}|[^ {_SHORT_WORDS}{_LONG_WORDS}]+")

_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_VALUE = rf"(?:{_QUOTED}|-?[\d.]+(?:[eE][+-]?\d+)?|true|false|null|True|False|None|[\[{{]+(?: ?[\]}}])*)"
# What no sentence begins with: {"key": and {'key': of JSON and of Python, also as the first of a list.
_BEGINS_RECORD = re.compile(rf"[\[(]*\{{ ?{_QUOTED} ?:")
# A line out of the middle of one: "key": "value", or "key": [
_INNER_LINE = re.compile(rf"{_QUOTED} ?: ?{_VALUE} ?[\]}}]* ?,?")
_TAG = re.compile(
    "<[/!?]?[A-Za-z][^<>]*>"
)  # alone in its line: <doc id="12" title="A river"> of a dump of Wikipedia
_LIST_OF_TEXTS = re.compile(rf"\[ ?(?:{_QUOTED} ?(?:, ?|(?=\])))+\] ?,?")


def normalise(text: str) -> str:
    """The normal form of a sentence; it holds no line end and no tab."""
    if text.isascii() and text.isprintable() and "  " not in text and not text.startswith(" "):
        return text.removesuffix(" ")  # most are in it already, and this is a tenth of the time
    text = _INVISIBLE.sub("", _TERMINAL.sub("", text))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split())


def words_in(sentence: str) -> int:
    """The number of words of a normalised sentence: what stands between blanks; of a script without blanks, two characters
    (Chinese, Japanese) or four (Thai, Lao, Khmer, Burmese) are a word."""
    if sentence.isascii() or not _WITHOUT_BLANKS.search(sentence):
        return sentence.count(" ") + 1
    return sum(any(map(str.isalnum, word)) for word in _WORDS.findall(sentence))


def is_record(sentence: str) -> bool:
    """Whether a normalised sentence is data: an object of JSON or of Python or a part of one, or a list with more in it than
    numbers, a tag of XML."""
    if sentence[:1] not in _OPENS_DATA:
        return False
    if sentence[0] == "<":
        return _TAG.fullmatch(sentence) is not None
    if (
        _BEGINS_RECORD.match(sentence)
        or _INNER_LINE.fullmatch(sentence)
        or _LIST_OF_TEXTS.fullmatch(sentence)
    ):
        return True
    sentence = sentence.removesuffix(",").rstrip()  # an element of a list over several lines
    if sentence[-1:] not in ("}", "]"):
        return False
    try:
        value = json.loads(sentence)
    except RecursionError:  # a thousand brackets
        return True
    except ValueError:
        return False
    return isinstance(value, dict) or any(isinstance(each, str | dict | list) for each in value)


def drop_reason(
    sentence: str,
    bytes_range: tuple[int, int],
    words_range: tuple[int, int],
    min_letters: float = 0.0,
    words: int | None = None,
) -> str | None:
    """Why a normalised sentence is dropped, or None; both ranges include their ends. words: absent = what stands between
    blanks."""
    size = len(sentence) if sentence.isascii() else len(sentence.encode())
    words = sentence.count(" ") + 1 if words is None else words
    if not size:
        return "empty"
    if size < bytes_range[0]:
        return "too few bytes"
    if size > bytes_range[1]:
        return "too many bytes"
    if words < words_range[0]:
        return "too few words"
    if words > words_range[1]:
        return "too many words"
    if min_letters and sum(map(str.isalpha, sentence)) < min_letters * len(sentence.replace(" ", "")):
        return "too few letters"
    return None
