"""Spearman equals scipy on cosines written out; tables are read by header; mistakes are sentences."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from unsee_dist.errors import UserError
from unsee_dist.evaluation.local_tasks import local_tasks
from unsee_dist.evaluation.mteb_suite import Encoder, evaluate_task
from unsee_dist.evaluation.mteb_tasks import local
from unsee_dist.evaluation.question_files import load_question_sets
from unsee_dist.evaluation.sts_files import load_pairs, load_sets
from unsee_dist.metrics.cosine import relative_std, unit_rows
from unsee_dist.metrics.sts import Pairs, spearman


def _encoder(seed, width=16):
    rng = np.random.default_rng(seed)
    table = {}

    def encode(sentences):
        for sentence in sentences:
            table.setdefault(sentence, rng.normal(size=width).astype(np.float32) + 1)
        return np.stack([table[sentence] for sentence in sentences])

    return encode


def _pairs(seed, count=200):
    rng = np.random.default_rng(seed)
    words = [f"sentence {i}" for i in range(count)]
    first, second = list(rng.choice(words, count)), list(rng.choice(words, count))
    return Pairs(first, second, rng.integers(0, 6, count).astype(np.float64))


def test_spearman_is_scipys_over_all_pairs_with_ties():
    pairs, encode = _pairs(0), _encoder(1)
    a, b = encode(pairs.first).astype(np.float64), encode(pairs.second).astype(np.float64)
    cosine = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    assert spearman(pairs, encode) == pytest.approx(100 * spearmanr(cosine, pairs.scores)[0], abs=1e-9)


def test_an_order_preserving_encoder_scores_100_and_its_reverse_minus_100():
    angles = np.linspace(0, 3, 20)
    sentences = [f"s{i}" for i in range(20)]
    vectors = dict(zip(sentences, np.stack([np.cos(angles), np.sin(angles)], 1), strict=True))
    pairs = Pairs(["s0"] * 20, sentences, -angles)
    assert spearman(pairs, lambda s: np.stack([vectors[x] for x in s])) == pytest.approx(100)
    opposed = pairs._replace(scores=angles)
    assert spearman(opposed, lambda s: np.stack([vectors[x] for x in s])) == pytest.approx(-100)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-6])
def test_a_constant_encoder_is_nan_even_with_rounding_noise(noise):
    rng = np.random.default_rng(2)

    def encode(s):
        return (np.ones((len(s), 32)) + noise * rng.normal(size=(len(s), 32))).astype(np.float32)

    assert np.isnan(spearman(_pairs(3), encode))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_embedding_that_is_not_finite_makes_the_score_nan(bad):
    def encode(sentences):
        rows = _encoder(4)(sentences)
        rows[0, 0] = bad
        return rows

    assert np.isnan(spearman(_pairs(5), encode))


def test_unit_rows_of_tiny_huge_and_zero_rows():
    u = unit_rows(np.array([[1e-200, 0], [1e200, 1e200], [0, 0], [3, 4]]))
    np.testing.assert_allclose(u, [[1, 0], [0.5**0.5, 0.5**0.5], [0, 0], [0.6, 0.8]], rtol=1e-12)
    assert relative_std(unit_rows(np.random.default_rng(0).normal(size=(5000, 64)))) == pytest.approx(
        1, abs=0.02
    )


ROWS = [('He said "hi', "two", "3.5"), ("three, four", "five", "1")]


def _write(path: Path, header=("sentence1", "sentence2", "score")):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n\n" for row in ROWS))
    elif path.suffix == ".tsv":
        path.write_text("\n".join("\t".join(row) for row in [header, *ROWS]))
    else:

        def quote(cell):
            return '"' + cell.replace('"', '""') + '"'

        path.write_text("\n".join(",".join(map(quote, row)) for row in [header, *ROWS]))
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_a_document_may_be_long(tmp_path, suffix):
    path = _write(tmp_path / f"sts{suffix}")
    path.write_text(path.read_text().replace("two", "two " * 100_000))
    assert len(load_pairs(path).second[0]) == 400_000


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_every_format_reads_the_same_pairs(tmp_path, suffix):
    pairs = load_pairs(_write(tmp_path / f"sts{suffix}"))
    assert pairs.first == ['He said "hi', "three, four"]
    assert pairs.second == ["two", "five"]
    assert pairs.scores.tolist() == [3.5, 1.0]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1,333", "1_000", "good", "1e999"])
def test_a_score_that_is_no_number_is_named_with_its_line(tmp_path, suffix, value):
    path = _write(tmp_path / f"sts{suffix}")
    lines = path.read_text().replace('"1"', f'"{value}"').replace("\t1", f"\t{value}").split("\n")
    path.write_text("\n".join([lines[0], "", *lines[1:]]))  # a blank line is counted
    line = 1 + next(n for n, each in enumerate(path.read_text().split("\n")) if "four" in each)
    with pytest.raises(UserError) as refused:
        load_pairs(path)
    assert str(refused.value) == (
        f"{path}, line {line}: score = {value} is not a number. Write a number, such as 3.5, or delete the pair."
    )


def test_columns_are_found_by_name_in_any_order(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("id\tlabel\tsentence2\tsentence1\n7\t1\tb\ta\n8\t2\td\tc\n")
    pairs = load_pairs(path)
    assert (pairs.first, pairs.second, pairs.scores.tolist()) == (["a", "c"], ["b", "d"], [1, 2])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.tsv", None, "is not a file"),
        ("empty.tsv", b"", "no rows"),
        ("header.tsv", b"sentence1\tsentence2\tscore\n", "no rows"),
        ("column.tsv", b"sentence1\tsentence2\trating\na\tb\t1\n", "no column score or label"),
        ("cell.tsv", b"sentence1\tsentence2\tscore\na\tb\n", "line 2 has 2 columns, its header 3"),
        (
            "tab.tsv",
            b"sentence1\tsentence2\tscore\na\t1\t2\tb\n",
            "line 2 has 4 columns, its header 3. Correct",
        ),
        ("open.csv", b'sentence1,sentence2,score\n"a,b,1\n', "is not a table row"),
        (
            "key.jsonl",
            b'{"sentence1": "a", "sentence2": "b", "score": 1}\n{"sentence1": "c", "score": 2}\n',
            "row 2: sentence2 has no value",
        ),
        ("number.tsv", b"sentence1\tsentence2\tscore\na\tb\thigh\n", "not a number"),
        ("equal.tsv", b"sentence1\tsentence2\tscore\na\tb\t1\nc\td\t1\n", "all equal"),
        ("binary.tsv", b"\xff\xfe\x00\x01", "not UTF-8"),
        ("broken.jsonl", b"{\n", "line 1 is not JSON"),
        ("list.jsonl", b"[1]\n", "not a JSON object"),
        ("odd.xlsx", b"PK", "Give a .tsv, .csv or .jsonl"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as raised:
        load_pairs(str(path))
    assert "\n" not in str(raised.value)


def test_a_set_that_cannot_be_read_names_its_setting(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for load, key in ((load_sets, "evaluate.sts"), (load_question_sets, "evaluate.retrieval")):
        with pytest.raises(UserError, match=rf"^{key} = nowhere\.tsv is not a file\. Give the path"):
            load(["nowhere.tsv"])
    with pytest.raises(
        UserError, match=r"^evaluate\.sts = nobody-here/no-such-dataset:test is neither a file"
    ):
        load_sets("nobody-here/no-such-dataset:test")


def test_a_name_on_the_hub_without_network_says_what_to_do():
    with pytest.raises(
        ValueError, match=r"Write the path of a \.tsv, \.csv or \.jsonl file, or load the dataset once"
    ):
        load_pairs("nobody-here/no-such-dataset:test")


def test_a_dataset_name_and_split_are_read_through_datasets(tmp_path):
    folder = tmp_path / "a-dataset"
    folder.mkdir()
    for split, score in (("train", 1), ("validation", 2), ("test", 3)):
        lines = [{"sentence1": "a", "sentence2": split, "label": score + i} for i in range(2)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    from unsee_dist.evaluation import sts_files as sts

    def read(source):
        return sts._pairs(sts._from_hub(source, (sts.FIRST, sts.SECOND, sts.SCORE)), source, str)

    assert read(str(folder)).second == ["validation"] * 2
    assert read(f"{folder}:test").scores.tolist() == [3, 4]


def test_the_real_development_set(shared):
    pairs = load_pairs(shared / "data/sts/stsb_dev.tsv")
    assert len(pairs.first) == len(pairs.second) == len(pairs.scores) == 1500
    assert (pairs.scores.min(), pairs.scores.max()) == (0, 5)


SCALES = {
    "below zero": lambda k: k - 10.0,
    "both signs": lambda k: (k - 3) / 3,
    "of 100": lambda k: 100.0 * k,
    "huge": lambda k: (k - 3) * 5e307,
    "tiny": lambda k: k * 5e-324,
    "close together": lambda k: 1e6 + k * 1e-6,
}


@pytest.mark.parametrize("scale", SCALES)
def test_scores_of_any_sign_and_scale_give_the_same_result(tmp_path, scale):
    """In the training and in `unsee evaluate`, whose mteb takes 0 to 5 for the scale of every task."""
    pairs, encode = _pairs(7, 40), _encoder(8)
    rows = [f"{a}\t{b}\t{SCALES[scale](k)}\n" for a, b, k in zip(*pairs, strict=True)]
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\tscore\n" + "".join(rows))
    expected = spearman(pairs, encode)
    assert spearman(load_pairs(tmp_path / "a.tsv"), encode) == pytest.approx(expected, abs=1e-9)
    task = local(local_tasks(tmp_path)[0])
    score = evaluate_task(task, Encoder(encode, "test/model", scale), None)
    assert score.score == pytest.approx(expected, abs=1e-4)


def test_half_a_character_is_no_text_for_a_tokenizer(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"sentence1": "x \\ud83d", "sentence2": "y", "score": 1}\n')
    with pytest.raises(UserError, match=r"a.jsonl, line 1 is not JSON: unexpected end of hex escape"):
        load_pairs(path)
