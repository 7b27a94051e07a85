"""Text: line ends of every kind, other encodings named, words of scripts without blanks, JSON that is no sentence."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsee_dist.config.load import checked
from unsee_dist.data import Shards
from unsee_dist.data.prepare import opening
from unsee_dist.data.prepare.clean import is_record, words_in
from unsee_dist.data.prepare.documents import documents_of
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.data.prepare.sources import input_splits
from unsee_dist.errors import UserError

LINES = [f"This is sentence {number} of a text." for number in range(9)]


@given(st.lists(st.sampled_from(["\n", "\r", "\r\n"]), min_size=9, max_size=9), st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_lines_end_in_any_way(tmp_path_factory: pytest.TempPathFactory, ends: list[str], chunk: int) -> None:
    """Also where a chunk ends between CR and LF; and the number of a line is the same."""
    path = tmp_path_factory.mktemp("ends") / "t.txt"
    path.write_bytes("".join(line + end for line, end in zip(LINES, ends, strict=True)).encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "CHUNK_BYTES", chunk)
        splits = list(input_splits([str(path)], "text", 60))
        assert [line for split in splits for (line,) in documents_of(split, "text")] == LINES
        assert all(LINES[split.first_line - 1] in split.lines.decode() for split in splits if split.lines)
        with path.open("ab") as file:
            file.write(b"caf\xe9\n")
        with pytest.raises(UserError, match=r"byte 0xe9 in line 10\)"):
            [list(documents_of(split, "text")) for split in input_splits([str(path)], "text", 60)]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_tables_and_json_end_their_lines_in_any_way(tmp_path: Path, kind: str) -> None:
    contents = {
        "csv": 'n,text\r1,"one, two three"\r2,four five six\r\n3,"seven\reight nine"\n',
        "tsv": "n\ttext\r1\tone, two three\r2\tfour five six\r\n3\tseven eight nine\n",
        "jsonl": '{"text": "one, two three"}\r{"text": "four five six"}\r\n{"text": "seven eight nine"}\n',
    }[kind]
    (tmp_path / f"t.{kind}").write_bytes(contents.encode())
    report = prepare([str(tmp_path / f"t.{kind}")], tmp_path / "out", PrepareSettings(), processes=1)
    assert report.read == 3
    assert sorted(Shards(tmp_path / "out").head(9)) == ["four five six", "one, two three", "seven eight nine"]


NEW = {"t.txt": r"NEW\.txt", "t.jsonl": r"NEW\.jsonl", "t.csv.gz": r"NEW\.csv"}
WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize(
    "text", ["plain words here\n" * 9, "Füße, naïve\r\n", "我们今天去公园玩。\n" * 400], ids=["a", "b", "c"]
)
@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("encoding", WIDE)
def test_wide_encodings_are_named_with_the_remedy(
    tmp_path: Path, encoding: str, mark: bool, text: str
) -> None:
    data = ("\ufeff" * (mark and encoding[-2:] in ("le", "be")) + text).encode(encoding)
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    family = name.removesuffix("LE").removesuffix("BE") if mark else name
    for path, packed in (
        (tmp_path / "t.txt", bytes),
        (tmp_path / "t.jsonl", bytes),
        (tmp_path / "t.csv.gz", gzip.compress),
    ):
        path.write_bytes(packed(data))
        with pytest.raises(
            UserError,
            match=rf"{path.name} is {family} text .*`iconv -f {family} -t UTF-8 .* > {NEW[path.name]}`, and give {NEW[path.name]}",
        ):
            prepare([str(path)], tmp_path / "out", PrepareSettings(), processes=1)


@pytest.mark.parametrize(
    "data", [b"\0\1\2\3" * 99, bytes(range(256)), b"text\0text " * 9, "\ue000\n".encode("utf-16-le") * 9]
)
def test_what_is_no_text_in_any_encoding_is_not_called_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(UserError, match=r"t.txt is not text"):
        prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("one two three", 3),
        ("naïve café ends - here", 5),
        ("한국어 문장 입니다", 3),
        ("我们今天去公园。", 4),
        ("我们用Python写代码,很好!", 6),
        ("これは日本語の文章です。", 6),
        ("วันนี้อากาศดี", 3),
        ("。", 1),
        ("", 1),
    ],
)
def test_words_of_scripts_without_blanks(sentence: str, words: int) -> None:
    assert words_in(sentence) == words


WITHOUT_BLANKS = {
    "zh": ["我们今天一起去公园玩。", "他每天早上都喝一杯咖啡。"],
    "ja": ["今日は公園に行きました。", "彼は毎朝コーヒーを飲みます。"],
    "th": ["วันนี้อากาศดีมากเราไปเที่ยวกัน", "เขาดื่มกาแฟทุกเช้าก่อนไปทำงาน"],
    "km": ["ថ្ងៃនេះយើងទៅលេងសួនច្បារ"],
    "my": ["ဒီနေ့ကျွန်တော်တို့ပန်းခြံကိုသွားတယ်"],
}


@pytest.mark.parametrize("language", WITHOUT_BLANKS)
def test_the_default_keeps_sentences_of_scripts_without_blanks(tmp_path: Path, language: str) -> None:
    lines = WITHOUT_BLANKS[language]
    (tmp_path / "t.txt").write_text("\n".join([*lines, "好"]), encoding="utf-8")
    report = prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)
    assert (report.kept, report.dropped) == (len(lines), {"too few words": 1})


@pytest.mark.parametrize(
    ("settings", "why", "remedy"),
    [
        ({"max_bytes": 10**6}, "too many words", "--split sentence, or a larger --max-words"),
        ({"max_words": 9999}, "too many bytes", "--split sentence, or a larger --max-bytes"),
        (
            {"max_words": 9999, "max_bytes": 10**6, "min_words": 999},
            "too few words",
            "smaller --min-words: 1 keeps",
        ),
        ({"max_words": 9999, "max_bytes": 10**6, "min_bytes": 10**5}, "too few bytes", "smaller --min-bytes"),
        (
            {"max_words": 9999, "max_bytes": 10**6, "min_letters": 1.0},
            "too few letters",
            "smaller --min-letters",
        ),
    ],
)
def test_most_of_the_input_dropped_is_said_with_the_remedy(
    tmp_path: Path, make_sentence: Callable[[int], str], settings: dict[str, object], why: str, remedy: str
) -> None:
    """Of 60 documents without --split sentence, with and without a sentence that is kept."""
    documents = [" ".join(make_sentence(80 * d + k) + " 3 %" for k in range(80)) for d in range(60)]
    kept = (
        "x" * 10**5
        if "min_bytes" in settings
        else "word " * 999
        if "min_words" in settings
        else "only these words"
    )
    chosen = checked(PrepareSettings, settings)
    (tmp_path / "t.txt").write_text("\n".join([*documents, kept]))
    if "min_bytes" in settings:
        chosen = chosen.model_copy(update={"min_words": 0})
    (notice,) = prepare([str(tmp_path / "t.txt")], tmp_path / "out", chosen, processes=1).notices()
    assert notice.startswith("MOST OF THE INPUT WAS DROPPED: 60 of 61 sentences, 60 of them for ")
    assert why in notice
    assert remedy in notice
    (tmp_path / "t.txt").write_text("\n".join(documents))
    with pytest.raises(UserError, match=f"no sentence is left of 60 read: 60 {why}.*{remedy}"):
        prepare([str(tmp_path / "t.txt")], tmp_path / "none", chosen, processes=1)


def test_a_little_dropped_and_duplicates_are_no_alarm(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join([*LINES * 9, "two words"]))
    assert (
        prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1).notices() == []
    )


@pytest.mark.parametrize(
    ("line", "is_data"),
    [
        ('{"text": "a value of words"}', True),
        ('["a", "b c d"]', True),
        ("[[1, 2], [3]]", True),
        ("{}", True),
        ('{"text": "a value of words"} ,', True),
        ("[sic] he said [so],", False),
        ("{", False),
        ('{"a":' * 3000 + "1" + "}" * 3000, True),
        ("[1]", False),
        ("[1, 2, 3]", False),
        ("{note} of the editor {end}", False),
        ("[sic] he said [so]", False),
        ('"He said so."', False),
        ("12 000", False),
        ("{'text': 'a value of words'}", True),
        ("{'text': \"it's a value\", 'n': None, 't': datetime(1, 2, 3)}", True),
        ("{'text': 'a value of words',", True),  # the rest is in the next line
        ('{"text": "cut in the mid', True),
        ("[{'text': 'a value'}, {'text': 'another'}]", True),
        ("['a', \"it's\", 'b c']", True),
        ('"text": "a value of words",', True),  # a line out of JSON over several lines
        ("'scores': [", True),
        ('"whole": true }', True),
        ('"Hamlet": a play of words', False),
        ("'Tis the season', he said: 'now'", False),
        ("'It is', he said, 'so'", False),
        ('"{" opens, "}" closes', False),
        ("{'x' in y}", False),
        ("['tis] so", False),
        ("(see {note}: there)", False),
        ('<doc id="12" url="https://x/y" title="An old river">', True),
        ("</doc>", True),
        ("<p>so he said it</p>", False),  # text in tags
        ("<3 is a heart", False),
        ("<he said so> and <she said so>", False),
    ],
)
def test_what_is_data_and_no_sentence(line: str, is_data: bool) -> None:
    assert is_record(line) is is_data


def test_a_line_of_json_in_a_text_is_dropped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join([*LINES, '{"text": "a value of words"}']))
    report = prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)
    assert report.dropped == {"JSON, or another record or tag": 1}
    (tmp_path / "t.txt").write_text('{"text": "a value of words"}\n')
    with pytest.raises(
        UserError, match=r"t.txt line 1 is a JSON object, not a sentence. Name the file .jsonl"
    ):
        prepare([str(tmp_path / "t.txt")], tmp_path / "none", PrepareSettings(), processes=1)


@pytest.mark.parametrize(
    "text",
    [
        '[\n{"text": "a value of words"},\n{"text": "another one"}\n]\n',
        '{"text": "a value of words"},\n{"text": "another one"}\n',
        '{\n  "text": "a value of words"\n}\n',
    ],
)
def test_json_over_several_lines_is_no_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(UserError, match=r"t.txt (is one JSON value|has a comma).*NEW.jsonl"):
        prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)


TWO = [{"text": "a value of words", "n": None}, {"text": 'it\'s "another" one', "n": True}]
ALMOST_JSON = {
    "a list": json.dumps(TWO),
    "a list over lines": json.dumps(TWO, indent=1),
    "an object over lines": "\n".join(json.dumps(each, indent=1) for each in TWO),
    "commas": "".join(f"{json.dumps(each)},\n" for each in TWO),
    "commas but the last, CR LF": ",\r\n".join(map(json.dumps, TWO)) + "\r\n",
    "commas in one line": ", ".join(map(json.dumps, TWO)) + "\n",
    "commas, over lines": ",\n".join(json.dumps(each, indent=1) for each in TWO) + ",\n\n",
    "Python's": "".join(f"{each}\n\n" for each in TWO),
    "Python's with commas": "".join(f"{each},\n" for each in TWO),
}


@pytest.mark.parametrize("suffix", [".json", ".txt", ""])
@pytest.mark.parametrize("kind", ALMOST_JSON)
def test_the_command_against_what_is_almost_jsonl_works(tmp_path: Path, kind: str, suffix: str) -> None:
    source = tmp_path / f"x{suffix}"
    source.write_text(ALMOST_JSON[kind], newline="")
    with pytest.raises(UserError) as refused:
        prepare([str(source)], tmp_path / "out", PrepareSettings(), processes=1)
    command = re.search("`(.*)`", str(refused.value))
    assert command, refused.value
    shell_command = command[1].replace("FILE", source.name)
    if "jq" in shell_command and shutil.which("jq") is None:
        pytest.skip("jq is not installed here")
    subprocess.run(["sh", "-c", shell_command], cwd=tmp_path, check=True)
    report = prepare([str(tmp_path / "NEW.jsonl")], tmp_path / "new", PrepareSettings(), processes=1)
    assert report.read == 2
    assert sorted(Shards(tmp_path / "new").head(9)) == sorted(each["text"] for each in TWO)


TEXTS = ["a value of words", 'it\'s "another" one\nover two lines']
# What jq makes of one value, by its program: where it is not installed, this stands for it.
JQ: dict[str, Callable[[object], list[object]]] = {
    ".": lambda value: [value],
    ".[]": list,
    "{text: .}": lambda value: [{"text": value}],
    ".[] | {text: .}": lambda value: [{"text": each} for each in value],
}


def with_jq(command: str, folder: Path) -> None:
    """Run the command of a remedy, `jq -c PROGRAM FILE > NEW`."""
    if shutil.which("jq"):
        subprocess.run(["sh", "-c", command], cwd=folder, check=True)
        return
    program, source, new = re.fullmatch(r"jq -c '?([^']*?)'? (\S+) > (\S+)", command).groups()  # type: ignore[union-attr]
    text, values = (folder / source).read_text(), list[object]()
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        values += JQ[program](value)
        text = text[end:]
    (folder / new).write_text("".join(json.dumps(each) + "\n" for each in values))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.jsonl", "".join(json.dumps([each]) + "\n" for each in TEXTS)),
        ("x.jsonl", json.dumps(TEXTS) + "\n"),
        ("x.jsonl", json.dumps([{"text": each} for each in TEXTS]) + "\n"),
        ("x.jsonl", "".join(json.dumps(each) + "\n" for each in TEXTS)),
        ("x.json", json.dumps(TEXTS)),
        ("x.json", json.dumps(TEXTS, indent=1)),
        ("x.json", json.dumps([TEXTS])),
        ("x.json", "".join(json.dumps([each]) + "\n" for each in TEXTS)),
        ("x.json", "".join(json.dumps(each) + "\n" for each in TEXTS)),
        ("x.txt", "".join(json.dumps([each]) + "\n" for each in TEXTS)),
        ("x", json.dumps(TEXTS)),
    ],
)
def test_the_command_against_json_without_objects_works(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as refused:
        prepare([str(tmp_path / name)], tmp_path / "out", PrepareSettings(), processes=1)
    command = re.search("`(.*)`", str(refused.value))
    assert command, refused.value
    with_jq(command[1].replace("FILE", name), tmp_path)
    report = prepare([str(tmp_path / "NEW.jsonl")], tmp_path / "new", PrepareSettings(), processes=1)
    assert report.read == 2
    assert sorted(Shards(tmp_path / "new").head(9)) == [each.replace("\n", " ") for each in TEXTS]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_named_and_its_bytes_are_not_to_be_made_a_text(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "x.txt").write_bytes(pickle.dumps(["one sentence of words"] * 9, protocol))
    with pytest.raises(UserError, match=r"x.txt is not text, but a pickle of Python. Give UTF-8 text"):
        prepare([str(tmp_path / "x.txt")], tmp_path / "out", PrepareSettings(), processes=1)


@pytest.mark.parametrize(
    ("data", "helps"),
    [
        (b"a line\0of words\n", True),
        ("caf\u00e9\0is open\n".encode(), True),
        (bytes(range(32)) + b"words\n", False),
        (b"\0\0\xff\xfe words\n", False),
        (b"\0" * 99 + b"\n", False),
    ],
)
def test_nul_bytes_are_to_be_deleted_where_a_text_is_left(tmp_path: Path, data: bytes, helps: bool) -> None:
    for name in ("x.txt", "x.csv"):
        (tmp_path / name).write_bytes(b"text\n" + data)
        with pytest.raises(UserError, match="NUL byte in line 2") as refused:
            prepare([str(tmp_path / name)], tmp_path / "out", PrepareSettings(), processes=1)
        assert ("tr -d" in str(refused.value)) == helps


@pytest.mark.parametrize(
    ("name", "text", "quoted"),
    [
        ("t.csv", "The river is cold.,3\nThe house is tall and old.,4\n", "'The river is cold.'"),
        ("t.csv", '0.5,"Rain, again and again, in the morning"\n0.7,"Sun, at last, over the hills"\n', None),
        ("t u.tsv", "1\tThe river is cold.\n2\tThe house is tall.\n", "'The river is cold.'"),
        ("t.tsv", "Well, the river is cold.\nThe house is tall.\n", "'Well, the river is cold.'"),
    ],
)
def test_a_table_without_a_header_gets_one_by_the_command(
    tmp_path: Path, name: str, text: str, quoted: str | None
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="its first line looks like data") as refused:
        prepare([str(tmp_path / name)], tmp_path / "out", PrepareSettings(), processes=1)
    assert quoted is None or str(refused.value).endswith(f"--field {quoted}.")
    command = re.search("`(.*)`", str(refused.value))
    assert command
    subprocess.run(["sh", "-c", command[1]], cwd=tmp_path, check=True)
    new = tmp_path / f"NEW{Path(name).suffix}"
    report = prepare([str(new)], tmp_path / "new", PrepareSettings(min_words=2), processes=1)
    assert report.read == 2
    assert report.dropped == {}


def test_a_field_in_a_hint_can_be_pasted(tmp_path: Path) -> None:
    for name, text in (
        ("t.csv", "Review text,n\nThe river is cold.,1\n"),
        ("t.jsonl", '{"Review text": "The river is cold."}\n'),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=r"Write --field 'Review text'\."):
            prepare([str(tmp_path / name)], tmp_path / "out", PrepareSettings(), processes=1)


@pytest.mark.parametrize(("records", "refused"), [(3, False), (4, True)])
def test_a_text_of_mostly_records_is_refused(tmp_path: Path, records: int, refused: bool) -> None:
    """Where most lines are none, they are dropped and counted."""
    lines = [*LINES[:3], *(f"{{'text': 'the value number {n} here'}}" for n in range(records))]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    if refused:
        with pytest.raises(UserError, match=r"most lines of .*t.txt are records .*NEW.jsonl"):
            prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)
        return
    report = prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)
    assert report.dropped == {"JSON, or another record or tag": 3}
    assert sorted(Shards(tmp_path / "out").head(9)) == LINES[:3]


def test_most_lines_of_json_behind_another_line_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join([LINES[0], *map(json.dumps, TWO)]))
    with pytest.raises(
        UserError, match=r"most lines of .*t.txt are JSON objects, not sentences. Name the file .jsonl"
    ):
        prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)


def test_a_table_with_a_column_of_records_is_read(tmp_path: Path) -> None:
    rows = [f"{{'n': {number}}}\t{line}" for number, line in enumerate(LINES)]
    (tmp_path / "t.tsv").write_text("\n".join(["meta\ttext", *rows]))
    assert prepare([str(tmp_path / "t.tsv")], tmp_path / "out", PrepareSettings(), processes=1).kept == len(
        LINES
    )


def test_a_text_that_is_markup_is_refused(tmp_path: Path) -> None:
    for start, what in (
        ("<!DOCTYPE html>", "HTML"),
        ("\n<html lang=en>", "HTML"),
        ('<?xml version="1.0"?>', "XML"),
    ):
        (tmp_path / "t.txt").write_text("\n".join([start, *LINES]))
        with pytest.raises(UserError, match=rf"t.txt is {what}, not text"):
            prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)


@pytest.mark.parametrize(
    ("lines", "notice"),
    [
        ([f"{number}\t{line}" for number, line in enumerate(LINES)], "each line has 2 columns with a tab"),
        (["id,text", *(f"{number},{line}" for number, line in enumerate(LINES))], "has the column 'text'"),
        (["A letter, text, or mail.", *LINES], None),
        ([*LINES, "a tab\tin one line"], None),
        (LINES, None),
    ],
)
def test_a_table_that_is_read_as_text_is_said(
    tmp_path: Path, lines: list[str], notice: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.txt").write_text("\n".join(lines))
    prepare([str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(), processes=1)
    printed = capsys.readouterr().err
    assert (
        f"t.txt: {'each' if notice is None else ''}" not in printed if notice is None else notice in printed
    )


def test_no_piece_of_a_record_becomes_a_sentence(tmp_path: Path) -> None:
    """A splitter would make two of it, which look like none."""
    record = "{'text': 'This is a value of it. This is another sentence of it.'}"
    (tmp_path / "t.txt").write_text("\n".join([*LINES, record]))
    report = prepare(
        [str(tmp_path / "t.txt")], tmp_path / "out", PrepareSettings(split="sentence"), processes=1
    )
    assert report.dropped == {"JSON, or another record or tag": 1}
    assert report.read == len(LINES) + 1
    assert sorted(Shards(tmp_path / "out").head(19)) == LINES


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"min_words": 50, "max_words": 10},
            r"--max-words = 10 is less than --min-words = 50: write at least 50",
        ),
        (
            {"min_bytes": 50, "max_bytes": 10},
            r"--max-bytes = 10 is less than --min-bytes = 50: write at least 50",
        ),
        (
            {"min_words": 50, "max_bytes": 20},
            r"--max-bytes = 20 is less than --min-words = 50 words .* at least 99",
        ),
        ({"language": "de"}, r"--language = de needs --split sentence"),
        ({"on_bad_record": "ignore"}, r"--on-bad-record = ignore must be stop or skip"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        checked(PrepareSettings, settings)
