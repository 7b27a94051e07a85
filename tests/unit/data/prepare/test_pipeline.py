"""The same text and settings give the same bytes; every sentence once; nothing held out is trained on."""

import json
import os
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from unsee_dist.config.load import checked
from unsee_dist.data import Shards
from unsee_dist.data.prepare.clean import drop_reason, normalise
from unsee_dist.data.prepare.languages import is_written_in
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.errors import UserError, foreseen


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def contents(folder):
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def read_all(path):
    shards = Shards(path)
    return [sentence for block in range(len(shards.blocks)) for sentence in shards.read(block)]


@given(st.text())
@settings(max_examples=500, deadline=None)
def test_normal_form_is_one_clean_line_and_stays(text):
    once = normalise(text)
    assert normalise(once) == once
    assert not set(once) & set("\n\r\t\v\f\0\u2028\ufeff")
    once.encode("utf-8")


def test_control_sequences_of_a_terminal_are_no_text():
    """A log with colours: without its ESC alone, "[31m" would become a word."""
    assert normalise("\x1b[1;31mError:\x1b[0m the disk\x1b[K is full") == "Error: the disk is full"
    assert normalise("\x9b31mred\x9b0m, and [0m is text") == "red, and [0m is text"
    link = "\x1b]8;;https://example.org\x1b\\a link\x1b]8;;\x07 in a log"
    assert normalise(link) == "a link in a log"
    assert normalise("an \x1b alone, \x1b] never ended") == "an alone, ] never ended"


@given(st.text(max_size=60), st.integers(0, 30), st.integers(0, 30), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_a_kept_sentence_is_within_all_bounds(text, low, high, few, many):
    sentence = normalise(text)
    size, words = len(sentence.encode()), len(sentence.split())
    kept = words > 0 and low <= size <= high and few <= words <= many
    assert (drop_reason(sentence, (low, high), (few, many)) is None) == kept


def test_letters_are_counted_without_spaces():
    assert drop_reason("ab 12 é", (1, 99), (1, 9), 0.6) is None
    assert drop_reason("ab 12 é", (1, 99), (1, 9), 0.61) == "too few letters"


def test_the_same_bytes_again_whatever_the_order_of_the_lines(tmp_path, make_sentence):
    lines = [make_sentence(i) for i in range(3000)]
    first = write_lines(tmp_path / "text.txt", lines)
    wanted = PrepareSettings(seed=1, shard_sentences=1024, dev=20)
    prepare([first], tmp_path / "a", wanted)
    prepare([first], tmp_path / "b", wanted)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    random.Random(0).shuffle(lines)
    prepare([write_lines(tmp_path / "other.txt", lines)], tmp_path / "c", wanted)
    assert Shards(tmp_path / "c").fingerprint == Shards(tmp_path / "a").fingerprint
    prepare([first], tmp_path / "d", PrepareSettings(seed=2, shard_sentences=1024, dev=20))
    assert Shards(tmp_path / "d").fingerprint != Shards(tmp_path / "a").fingerprint


def test_every_sentence_once_and_every_line_counted(tmp_path, make_sentence):
    lines = [make_sentence(i) for i in range(1500)]
    twice = [line.replace(" ", "  \t") + "\u00ad\r" for line in lines[:400]]
    noise = ["", " ", "one two", "x" * 3000 + " a b", "\x07"]
    report = prepare(
        [write_lines(tmp_path / "t.txt", lines + twice + noise)], tmp_path / "out", PrepareSettings()
    )
    assert sorted(read_all(tmp_path / "out")) == sorted(lines)
    assert read_all(tmp_path / "out") != lines  # shuffled
    assert report.dropped == {"duplicate": 400, "empty": 1, "too few words": 1, "too many bytes": 1}
    assert report.read == report.kept + sum(report.dropped.values()) == 1903  # blank lines are not sentences
    assert report.bytes == sum(file.stat().st_size for file in (tmp_path / "out").glob("*.tar"))


def test_held_out_sentences_are_not_in_the_shards(tmp_path, make_sentence):
    lines = [make_sentence(i) for i in range(1200)]
    report = prepare([write_lines(tmp_path / "t.txt", lines * 2)], tmp_path / "out", PrepareSettings(dev=50))
    header, *rows = (tmp_path / "out" / "dev.tsv").read_text().splitlines()
    pairs = [row.split("\t") for row in rows]
    assert header == "query\tanswer"
    assert len(pairs) == len({q for q, _ in pairs}) == len({a for _, a in pairs}) == report.dev == 50
    whole = {f"{query} {answer}" for query, answer in pairs}
    assert whole < set(lines)
    trained = read_all(tmp_path / "out")
    assert sorted([*trained, *whole]) == sorted(lines)
    assert report.dropped["held out"] == 100


def test_documents_ask_with_their_first_sentence(tmp_path, make_sentence):
    """Their sentences stay out even where a document that trains repeats them."""
    documents = [[make_sentence(5 * d + k) for k in range(5)] for d in range(100)]
    documents += [[document[2], make_sentence(10_000 + d)] for d, document in enumerate(documents)]
    source = write_lines(
        tmp_path / "d.jsonl", [json.dumps({"id": i, "s": d}) for i, d in enumerate(documents)]
    )
    prepare([source], tmp_path / "out", PrepareSettings(field="s", dev=30))
    trained = set(read_all(tmp_path / "out"))
    asked = dict(row.split("\t") for row in (tmp_path / "out" / "dev.tsv").read_text().splitlines()[1:])
    held = [document for document in documents if asked.get(document[0]) == " ".join(document[1:])]
    assert len(held) == len(asked) == 30
    assert trained == {s for d in documents for s in d} - {s for d in held for s in d}


def test_a_finished_folder_is_left_alone_and_another_corpus_refused(tmp_path, text, make_sentence):
    out = tmp_path / "out"
    first = prepare([str(text)], out, PrepareSettings())
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    again = prepare([str(text)], out, PrepareSettings())
    assert again.seconds is None
    assert (again.kept, again.dropped, again.fingerprint) == (first.kept, first.dropped, first.fingerprint)
    assert before == {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    with pytest.raises(
        ValueError, match=r"already has another corpus: seed = 0 there, 4 here. Choose another"
    ):
        prepare([str(text)], out, PrepareSettings(seed=4))
    other = write_lines(tmp_path / "other.txt", [make_sentence(i) for i in range(9)])
    with pytest.raises(ValueError, match=r"made of rule.txt .* there, of other.txt .* here"):
        prepare([other], out, PrepareSettings())


def test_an_interrupted_preparation_starts_over(tmp_path, text, monkeypatch):
    """Cut before the n-th rename: no corpus yet, and the rerun gives the bytes of a run never cut."""
    wanted = PrepareSettings(shard_sentences=1024, dev=5)
    prepare([str(text)], tmp_path / "whole", wanted, processes=1)
    for cut in range(1, 6):
        out, renames, replace = tmp_path / f"cut-{cut}", [0], os.replace

        def failing(self, target, *, renames=renames, cut=cut, replace=replace):
            renames[0] += 1
            if renames[0] > cut:
                raise KeyboardInterrupt
            replace(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", failing)
            with pytest.raises(KeyboardInterrupt):
                prepare([str(text)], out, wanted, processes=1)
        with pytest.raises(
            ValueError,
            match=r"has no index.json, so it is not a prepared corpus, or its preparation was interrupted",
        ):
            Shards(out)
        prepare([str(text)], out, wanted, processes=1)
        assert contents(out) == contents(tmp_path / "whole")


def test_another_preparation_does_not_clear_an_interrupted_one(tmp_path, text, monkeypatch):
    """Other settings are refused, mended inputs start over, and what failed at once leaves nothing."""
    out, bad = tmp_path / "out", tmp_path / "bad.txt"
    bad.write_bytes(b"na\xefve\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        prepare([str(bad)], out, PrepareSettings())
    assert not out.exists()
    source = tmp_path / "rule.txt"
    source.write_bytes(text.read_bytes() + b"na\xefve\n")
    monkeypatch.setattr("unsee_dist.data.prepare.pipeline.SPLIT_BYTES", (50_000, 50_000))
    monkeypatch.setattr("unsee_dist.data.prepare.opening.CHUNK_BYTES", 10_000)
    with pytest.raises(ValueError, match="not UTF-8"):
        prepare([str(source)], out, PrepareSettings(), processes=1)
    done = sorted((out / "preparing").glob("run-*"))
    assert done
    with pytest.raises(
        ValueError, match=r"interrupted preparation of another corpus: seed = 0 there, 1 here"
    ):
        prepare([str(source)], out, PrepareSettings(seed=1))
    assert sorted((out / "preparing").glob("run-*")) == done
    source.write_bytes(text.read_bytes())
    prepare([str(source)], out, PrepareSettings(), processes=1)
    prepare([str(text)], tmp_path / "whole", PrepareSettings(), processes=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_any_cut_into_pieces_ranges_and_marks_gives_the_same_shards(tmp_path, make_sentence, monkeypatch):
    """Also where a shard starts between two marks, and a sentence occurs in every piece."""
    lines = [make_sentence(i % 5000) for i in range(9000)] + [make_sentence(7)] * 500
    random.Random(0).shuffle(lines)
    source = write_lines(tmp_path / "t.txt", lines)
    wanted = PrepareSettings(shard_sentences=1024, dev=20)
    prepare([source], tmp_path / "whole", wanted)
    monkeypatch.setattr("unsee_dist.data.prepare.opening.CHUNK_BYTES", 5000)
    for piece, span, mark in [
        (20_000, 10**9, 1024),
        (50_000, 700, 100),
        (10**9, 1, 7),
        (7_000, 10_000, 3000),
    ]:
        monkeypatch.setattr("unsee_dist.data.prepare.pipeline.SPLIT_BYTES", (piece, piece))
        monkeypatch.setattr("unsee_dist.data.prepare.merge.RANGE", max(span, 50))
        monkeypatch.setattr("unsee_dist.data.prepare.merge.MARK", mark)
        prepare([source], tmp_path / f"{piece}", wanted, processes=1)
        assert contents(tmp_path / f"{piece}") == contents(tmp_path / "whole")


def test_documents_are_split_into_sentences(tmp_path):
    """By the splitter of the extra, whose version the corpus remembers."""
    document = "Dr. Smith went home early. He slept until ten. It cost 3.5 dollars a night!"
    source = write_lines(tmp_path / "d.jsonl", [json.dumps({"text": document})])
    prepare([source], tmp_path / "out", PrepareSettings(split="sentence"))
    assert sorted(read_all(tmp_path / "out")) == [
        "Dr. Smith went home early.",
        "He slept until ten.",
        "It cost 3.5 dollars a night!",
    ]
    assert "sentencex" in Shards(tmp_path / "out").index.preparation["splitter"]


def test_sentences_in_another_language_are_dropped_and_counted(tmp_path, monkeypatch):
    english = [f"The old river follows a bright garden behind the {thing}." for thing in ("house", "hill")]
    german = ["Der alte Fluss folgt dem hellen Garten hinter das Haus."]
    source, wanted = write_lines(tmp_path / "t.txt", english + german), PrepareSettings(keep_language="en")
    report = prepare([source], tmp_path / "out", wanted)
    assert (report.read, report.kept, report.dropped) == (3, 2, {"another language": 1})
    assert sorted(Shards(tmp_path / "out").head(9)) == sorted(english)
    assert prepare([source], tmp_path / "all", PrepareSettings()).kept == 3
    with pytest.raises(
        ValueError, match=r"keep_language = xx is not a language that py3langid knows\. Use one of .*en"
    ):
        prepare([source], tmp_path / "no", PrepareSettings(keep_language="xx"))
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)  # not installed
    is_written_in.cache_clear()
    with pytest.raises(ModuleNotFoundError) as missing:
        prepare([source], tmp_path / "no", PrepareSettings(keep_language="en"))
    assert 'pip install "unsee_dist[language]"' in str(foreseen(missing.value))
    assert not (tmp_path / "no").exists()


def test_somebody_elses_folder_is_not_touched(tmp_path, text):
    (tmp_path / "shard-000000.tar").write_bytes(b"theirs")
    with pytest.raises(
        ValueError, match=r"is not empty, and it is not a corpus of `unsee prepare`. Choose another --out"
    ):
        prepare([str(text)], tmp_path, PrepareSettings())
    assert (tmp_path / "shard-000000.tar").read_bytes() == b"theirs"


def test_a_file_of_the_users_in_the_work_folder_stays(tmp_path, text):
    prepare([str(text)], tmp_path / "out", PrepareSettings(), processes=1)
    (tmp_path / "out" / "preparing").mkdir()
    mine = tmp_path / "out" / "preparing" / "notes.txt"
    mine.write_text("mine")
    prepare([str(text)], tmp_path / "out", PrepareSettings(), processes=1)
    assert mine.read_text() == "mine"
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["sorted.json", "shard-000000.tar.json"])
def test_what_a_stage_has_left_and_somebody_changed_is_a_sentence(tmp_path, text, monkeypatch, name):
    out = tmp_path / "out"
    monkeypatch.setattr("unsee_dist.data.prepare.stages.remove_work", lambda _: None)
    prepare([str(text)], out, PrepareSettings(), processes=1)
    (out / "index.json").unlink()
    (out / "preparing" / name).write_text("{")
    with pytest.raises(UserError, match=rf"{name} is damaged. Delete .*preparing"):
        prepare([str(text)], out, PrepareSettings(), processes=1)


def test_a_url_is_no_folder_to_write_into(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--out s3://bucket/x is a URL"):
        prepare([str(text)], Path("s3://bucket/x"), PrepareSettings())
    assert not list(tmp_path.glob("s3*"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shard_sentences": 1500}, r"--shard-sentences = 1500 must be a multiple of 1024: write 1024"),
        ({"seed": -1}, r"seed = -1"),
        ({"dev": -1}, r"dev = -1"),
        ({"split": "word"}, r"--split = word must be line or sentence"),
        ({"min_letters": 2}, r"--min-letters = 2 must be at most 1"),
        ({"min_words": 9, "max_words": 8}, r"--max-words = 8 is less than --min-words = 9: write at least 9"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        checked(PrepareSettings, settings)


def test_nothing_left_and_too_few_to_hold_out(tmp_path):
    short = write_lines(tmp_path / "short.txt", ["a b", "c d"])
    with pytest.raises(ValueError, match=r"no sentence is left of 2 read: 2 too few words"):
        prepare([short], tmp_path / "out", PrepareSettings())
    with pytest.raises(ValueError, match=r"--dev 3: the inputs give 0 held-out pairs"):
        prepare([short], tmp_path / "out", PrepareSettings(dev=3))
    with pytest.raises(ValueError, match=r"no input was given"):
        prepare([], tmp_path / "out", PrepareSettings())
    assert not (tmp_path / "out").exists()


def test_the_report_is_a_table_of_all_counts(tmp_path, text):
    report = prepare([str(text)], tmp_path / "out", PrepareSettings(dev=10))
    console = Console(width=100, record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(report.table())
    shown = console.export_text()
    for word in ("2,500", "2,490", "held out", "held-out pairs", report.fingerprint):
        assert word in shown
