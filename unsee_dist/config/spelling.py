"""Which legal word was meant by one that is not: the nearest by edit distance, or none where nothing is near."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LONGEST = 100  # letters: a longer text is no misspelt word
PART = 4  # letters that one word must have to be found inside another: batch_size is near to batch


def closest(word: str, legal: Iterable[str]) -> str | None:
    """The legal word that was probably meant, or None."""
    return _nearest(word, [other for other in legal if _near(word, other)])


def closest_key(key: str, legal: Sequence[str]) -> str:
    """What to write instead of an unknown key: the key that was probably meant, or the existing ones."""
    section, _, last = key.rpartition(".")
    sections = list(dict.fromkeys(other.split(".")[0] for other in legal))
    if meant := _nearest(key, [other for other in legal if _near_key(key, other)]):
        return f"did you mean {meant}?"
    if not section and (meant := closest(key, sections)):
        return f"did you mean the section {meant}?"
    owners = [other for other in legal if other.rpartition(".")[2] == last]
    if len(owners) == 1 or (owners and not section):  # lr, optim.lr
        return f"did you mean {owners[0]}?"
    if section in sections:
        own = [other.partition(".")[2] for other in legal if other.startswith(section + ".")]
        return f"{section} has {', '.join(own)}"
    return f"sections are {', '.join(sections)}"


def _near_key(key: str, other: str) -> bool:
    """Near in the section and in the word below it; a key without a section is compared with the word alone, too."""
    (section, _, last), (known, _, word) = key.rpartition("."), other.rpartition(".")
    if not section:
        return (_near(key, word) and key != word) or (len(key) <= LONGEST and distance(key, other) <= 1)
    return _near(section, known) and _near(last, word)


def _near(word: str, other: str) -> bool:
    """At most a third of the letters differ, or one word is a part of the other."""
    short, long = sorted((word.lower(), other.lower()), key=len)
    if not short or len(long) > LONGEST:
        return False
    return (len(short) >= PART and short in long) or distance(short, long) <= max(1, len(short) // 3)


def _nearest(word: str, near: Sequence[str]) -> str | None:
    return min(near, key=lambda other: distance(word.lower(), other.lower()), default=None)


def distance(a: str, b: str) -> int:
    """Letters to insert, delete, replace, or to exchange with their neighbour, to make b of a."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        older, before, row = before, row, [i]
        for j, other in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]
