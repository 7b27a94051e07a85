"""Changes of a file's bytes, as damage, editors and attackers make them. All randomness is the caller's dice."""

from __future__ import annotations

import json
from random import Random
from typing import Any

NUMBERS = [
    *("0", "-1", "1", "7.5", "1e999", "-0.0", "NaN", "Infinity", "1e-400"),
    *(
        str(2**31),
        str(2**53),
        str(2**63 - 1),
        str(2**63),
        str(-(2**63)),
        str(2**64),
        "9" * 40,
        "1" + "0" * 5000,
    ),
]
WORDS = [
    *(b"null", b"true", b"[]", b"{}", b'""', b'"', b"\\", b"\n", b"\r", b"\t", b",", b":", b" ", b"\x00"),
    *(
        b"\xff\xfe",
        b"\xc3\x28",
        b'"\\ud800"',
        b"../../x",
        b"/dev/zero",
        b"[" * 300,
        b'{"a":' * 300,
        b"- " * 300,
    ),
    *(
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!int x",
        b"!!python/object/apply:os.getcwd []",
        b"? ",
        b"%YAML 9",
        b"---\n",
        b"|\n",
    ),
    *(b"NaN", b"1e999", b"2024-13-45", b"{choice: [1, 2]}", b"extends: tiny\n"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 2**31, 2**62, 2**63, 2**70, -(2**70), 1e300, float("nan"), float("inf")),
    *("", "x", "\u2028", "../x", "/dev/zero", "9" * 400, [], {}, [[]], [0] * 3, {"a": 1}),
]


def of_bytes(data: bytes, dice: Random) -> bytes:
    """One to four small changes anywhere."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        dice.choice(BYTE_CHANGES)(changed, dice)
    return bytes(changed)


def of_json(data: bytes, dice: Random) -> bytes:
    """One value of a JSON text becomes another, or is gone, or is there twice; the bytes' changes when it is none."""
    try:
        tree = json.loads(data)
    except ValueError:
        return of_bytes(data, dice)
    places = list(_places(tree))
    if not places:
        return of_bytes(data, dice)
    inside, key = dice.choice(places)
    what = dice.randrange(5)
    if what == 0:
        del inside[key]
    elif what == 1 and isinstance(inside, list):
        inside.insert(key, inside[key])
    elif what == 2:
        inside[key] = _neighbour(inside[key], dice)
    elif what == 3:
        other, name = dice.choice(places)
        inside[key] = (
            json.loads(json.dumps(other[name])) if name in other or isinstance(other, list) else None
        )
    else:
        inside[key] = _nested(dice) if dice.random() < 0.1 else dice.choice(VALUES)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    """Every (container, key) of a tree."""
    waiting = [tree]
    while waiting:
        inside = waiting.pop()
        keys = (
            list(inside)
            if isinstance(inside, dict)
            else range(len(inside))
            if isinstance(inside, list)
            else []
        )
        for key in keys:
            yield inside, key
            waiting.append(inside[key])


def _neighbour(value: Any, dice: Random) -> Any:
    """A value of the same type beside it."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return dice.choice([value + 1, value - 1, -value, value * 2, value * 10**9, float(value)])
    if isinstance(value, str):
        place = dice.randrange(len(value) + 1)
        return value[:place] + dice.choice("0a_./\u00e4") + value[place + dice.randrange(2) :]
    return list(reversed(value)) if isinstance(value, list) else dict(list(value.items())[1:])


def _nested(dice: Random) -> Any:
    tree: Any = 1
    for _ in range(dice.choice((50, 250, 900))):
        tree = [tree] if dice.random() < 0.5 else {"a": tree}
    return tree


def _flip(data: bytearray, dice: Random) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _digit(data: bytearray, dice: Random) -> None:
    """A digit becomes another one: what a wrong count looks like."""
    places = [place for place, byte in enumerate(data) if 48 <= byte < 58]
    if places:
        data[dice.choice(places)] = 48 + dice.randrange(10)


def _number(data: bytearray, dice: Random) -> None:
    places = [place for place, byte in enumerate(data) if 48 <= byte < 58]
    if places:
        start = dice.choice(places)
        stop = start
        while stop < len(data) and (48 <= data[stop] < 58 or data[stop] in b".e+-"):
            stop += 1
        data[start:stop] = dice.choice(NUMBERS).encode()


def _span(data: bytearray, dice: Random) -> slice:
    start = dice.randrange(len(data) + 1)
    return slice(start, min(len(data), start + dice.choice((1, 2, 8, 64, 512))))


def _delete(data: bytearray, dice: Random) -> None:
    del data[_span(data, dice)]


def _repeat(data: bytearray, dice: Random) -> None:
    span = _span(data, dice)
    data[span] = data[span] * dice.choice((2, 3, 100))


def _move(data: bytearray, dice: Random) -> None:
    span = _span(data, dice)
    moved = bytes(data[span])
    del data[span]
    place = dice.randrange(len(data) + 1)
    data[place:place] = moved


def _insert(data: bytearray, dice: Random) -> None:
    place = dice.randrange(len(data) + 1)
    data[place:place] = dice.choice(WORDS) if dice.random() < 0.7 else dice.randbytes(dice.choice((1, 4, 30)))


def _cut(data: bytearray, dice: Random) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _zero(data: bytearray, dice: Random) -> None:
    span = _span(data, dice)
    data[span] = bytes(span.stop - span.start)


BYTE_CHANGES = [_flip, _digit, _digit, _number, _delete, _repeat, _move, _insert, _cut, _zero]
