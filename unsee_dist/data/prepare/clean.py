"""Clean: one normal form for a sentence, and the reasons to drop one.

Normal form: control and invisible characters removed, Unicode NFKC, runs of whitespace (line ends among them) one
space, none at the ends. `normalise` is idempotent, so what a block holds is what a second preparation would keep.
"""

from __future__ import annotations

import re
import unicodedata

# Control characters that are not whitespace; soft hyphen, zero-width space, word joiner, byte order mark; and
# surrogates, which JSON can spell ("\ud800") and UTF-8 cannot. Joiners stay: Persian and emoji need them.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ud800-\udfff]")


def normalise(text: str) -> str:
    """The normal form of a sentence; it holds no line end and no tab."""
    if text.isascii() and text.isprintable() and "  " not in text and not text.startswith(" "):
        return text.removesuffix(" ")  # most are in it already, and this is a tenth of the time
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split())


def drop_reason(
    sentence: str, bytes_range: tuple[int, int], words_range: tuple[int, int], min_letters: float = 0.0
) -> str | None:
    """Why a normalised sentence is dropped, or None; both ranges include their ends."""
    size = len(sentence) if sentence.isascii() else len(sentence.encode())
    words = sentence.count(" ") + 1
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
    if min_letters and sum(map(str.isalpha, sentence)) < min_letters * (len(sentence) - words + 1):
        return "too few letters"
    return None
