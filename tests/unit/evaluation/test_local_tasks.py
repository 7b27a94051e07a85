"""A folder of files becomes tasks by columns or by tasks.yaml; what makes no task is a sentence."""

from pathlib import Path

import pytest

from unsee_dist.errors import UserError
from unsee_dist.evaluation.local_tasks import local_tasks
from unsee_dist.evaluation.task_files import texts


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def test_the_columns_tell_the_kind_and_the_name_is_the_files(tmp_path):
    _write(
        tmp_path,
        a__tsv="sentence1\tsentence2\tscore\nx\ty\t1\nx\tz\t2\n",
        b__tsv="sentence1\tsentence2\tlabel\nx\ty\t1\nx\tz\t0\n",
        c__csv="text,label\nx,1\ny,2\nz,2\n",
        d_train__tsv="text\tlabel\nx\tp\ny\tq\n",
        d_test__tsv="text\tlabel\nz\tq\n",
        e_test__tsv="sentence1\tsentence2\tscore\nx\ty\t1\nx\tz\t2\n",
        f__jsonl='{"query": "x", "positive": ["y"], "negative": ["z"]}\n',
        g__tsv="query\tanswer\nx\ty\nz\tw\n",
    )
    found = {task.name: task for task in local_tasks(tmp_path)}
    assert {name: task.kind for name, task in found.items()} == {
        "a": "sts", "b": "pair_classification", "c": "clustering", "d": "classification", "e_test": "sts", "g": "questions",
        "f": "reranking",
    }  # fmt: skip
    assert found["d"].data["train"]["label"] == [0, 1]
    assert found["d"].data["test"]["label"] == [1]
    assert found["g"].data["qrels"] == {"query": ["q0", "q1"], "document": ["d0", "d1"], "score": [1, 1]}
    assert list(texts(found["f"].data)) == ["x", "y", "z"]
    assert list(texts(found["a"].data)) == ["x", "x", "y", "z"]


def test_a_manifest_names_the_tasks_and_its_paths_are_its_folders(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    _write(tmp_path, topics__tsv="text\tlabel\nx\t1\ny\t2\nz\t2\n")
    _write(inner, tasks__yaml="mine: {kind: clustering, file: ../topics.tsv}\n")
    (task,) = local_tasks(inner)
    assert (task.name, task.kind, task.data["test"]["labels"]) == ("mine", "clustering", ["1", "2", "2"])


def test_a_changed_file_is_another_task(tmp_path):
    before = local_tasks(_write(tmp_path, c__csv="text,label\nx,1\ny,2\nz,1\n"))[0].digest
    assert local_tasks(_write(tmp_path, c__csv="text,label\nx,1\ny,2\nz,1\n"))[0].digest == before
    assert local_tasks(_write(tmp_path, c__csv="text,label\nx,1\ny,2\nz,2\n"))[0].digest != before


def test_the_same_file_as_another_kind_is_another_task(tmp_path):
    _write(tmp_path, a__tsv="sentence1\tsentence2\tlabel\nx\ty\t1\nx\tz\t0\n")
    digests = set()
    for kind in ("sts", "pair_classification"):
        _write(tmp_path, tasks__yaml=f"a: {{kind: {kind}, file: a.tsv}}\n")
        digests.add(local_tasks(tmp_path)[0].digest)
    assert len(digests) == 2


def test_a_line_moved_from_one_half_to_the_other_makes_another_task(tmp_path):
    p, q, r = (f'{{"text": "{text}", "label": "{text in "xy"}"}}\n' for text in "xyz")
    before = local_tasks(_write(tmp_path, d_test__jsonl=p, d_train__jsonl=q + r + p))[0].digest
    assert local_tasks(_write(tmp_path, d_test__jsonl=p + q, d_train__jsonl=r + p))[0].digest != before
    _write(tmp_path, tasks__yaml="d: {kind: classification, train: d_train.jsonl, test: d_test.jsonl}\n")
    assert local_tasks(_write(tmp_path, d_test__jsonl=p, d_train__jsonl=q + r + p))[0].digest == before


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["no task"]),
        ({"a__tsv": "sentence1\tscore\nx\t1\n"}, ["a.tsv", "sentence1, score", "sts: sentence1, sentence2, score"]),
        ({"a__tsv": "sentence1\tsentence2\tscore\n"}, ["a.tsv", "no rows"]),
        ({"b__tsv": "sentence1\tsentence2\tlabel\nx\ty\tyes\nx\tz\tno\n"}, ["b.tsv, line 3: label = no is neither", "Write 0 and 1"]),
        ({"d_train__tsv": "text\tlabel\nx\tp\ny\tr\n", "d_test__tsv": "text\tlabel\nx\tq\n"}, ["d_test.tsv, line 2: label = q is not in"]),
        ({"d_train__tsv": "text\tlabel\nx\tp\ny\tp\n", "d_test__tsv": "text\tlabel\nx\tp\n"}, ["label = p everywhere"]),
        ({"d_train__tsv": "text\tlabel\nx\tp\ny\tr\n"}, ["d_train.tsv is one of the two files of a classification"]),
        ({"c__tsv": "text\tlabel\nx\tp\ny\tp\n"}, ["c.tsv: label = p everywhere"]),
        ({"c__tsv": "text\tlabel\nx\tp\ny\tq\n"}, ["c.tsv: every text has a label of its own"]),
        ({"c__jsonl": '{"text": "x", "label": ["p"]}\n'}, ["c.jsonl, row 1: label is", "a text or a number"]),
        ({"d_train__tsv": "text\tlabel\nx\tp\n", "d_test__tsv": "text\tkind\nx\tq\n"}, ["no column label"]),
        ({"f__jsonl": '{"query": "x", "positive": "y", "negative": ["z"]}\n'}, ["row 1: positive is not a list"]),
        ({"f__jsonl": '{"query": "x", "positive": ["y"], "negative": [3]}\n'}, ["row 1: negative is not a list"]),
        ({"tasks__yaml": "a/b: {kind: clustering, file: a.tsv}\n"}, ["a/b", "Rename it"]),
        ({"corpus__jsonl": "{}\n"}, ["is itself a BEIR folder"]),
        ({"tasks__yaml": "a: {kind: clusterin, file: a.tsv}\n"}, ["did you mean clustering?"]),
        ({"tasks__yaml": "a: {kind: clustering, path: a.tsv}\n"}, ["kind, file"]),
        ({"tasks__yaml": "a: {kind: clustering, file: a.tsv}\n"}, ["a.tsv is missing"]),
        ({"tasks__yaml": f"a: {{kind: retrieval, folder: {'x' * 300}}}\n"}, ["File name too long", "tasks.yaml names it"]),
        ({"tasks__yaml": "a: {kind: clustering, file: ~nobody-here/a.tsv}\n"}, ["tasks.yaml, a: ~nobody-here/ is the home folder of a user"]),
        ({"tasks__yaml": "- a\n"}, ["tasks.yaml is not a map"]),
        ({"tasks__yaml": "a: [\n"}, ["tasks.yaml is not YAML"]),
    ],
)  # fmt: skip
def test_what_makes_no_task_is_a_sentence(tmp_path, files, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are below)
        local_tasks(_write(tmp_path, **files))
    assert all(word in str(error.value) for word in words), error.value


STS = "sentence1\tsentence2\tscore\nx\ty\t1\nx\tz\t2\n"
HALVES = {"b_train__tsv": "text\tlabel\nx\tp\ny\tq\n", "b_test__tsv": "text\tlabel\nz\tq\n"}


@pytest.mark.parametrize(
    ("files", "both"),
    [
        ({"a__tsv": STS, "a__csv": STS.replace("\t", ",")}, "a.csv and {}a.tsv"),
        ({"a__TSV": STS, "a__tsv": STS}, "a.TSV and {}a.tsv"),
        ({**HALVES, "b__tsv": STS}, "b_train.tsv and {}b.tsv"),
        ({**HALVES, "b_test__csv": "text,label\nx,p\n"}, "b_test.csv and {}b_test.tsv"),
        ({"r__tsv": STS}, "r and {}r.tsv"),  # beside the BEIR folder
    ],
)
def test_two_files_of_one_name_are_refused_and_none_is_dropped(tmp_path, files, both):
    _beir(tmp_path, CORPUS, QUERIES, "q1\td1\t1\n")
    _write(tmp_path, **files)
    with pytest.raises(UserError) as error:
        local_tasks(tmp_path)
    assert f"{tmp_path}/{both.format(f'{tmp_path}/')} would both be the task" in str(error.value)


def test_a_link_to_itself_is_named_and_no_crash(tmp_path, capsys):
    (_write(tmp_path, a__tsv=STS) / "loop").symlink_to("loop")
    assert [task.name for task in local_tasks(tmp_path)] == ["a"]
    assert "no task is made of loop" in capsys.readouterr().err


def test_a_suffix_in_upper_case_is_a_table(tmp_path):
    files = {
        "a__TSV": STS,
        "b__Csv": STS.replace("\t", ","),
        "f__JSONL": '{"query": "x", "answer": "y"}\n{"query": "z", "answer": "v"}\n',
    }
    assert [task.name for task in local_tasks(_write(tmp_path, **files))] == ["a", "b", "f"]


def test_what_belongs_to_no_task_is_said(tmp_path, capsys):
    _write(tmp_path, a__tsv=STS, b__tsv__gz="x", c__parquet="x", README__md="x")
    (tmp_path / ".hidden").touch()
    (tmp_path / "half").mkdir()
    assert [task.name for task in local_tasks(tmp_path)] == ["a"]
    assert capsys.readouterr().err == f"--tasks {tmp_path}: no task is made of b.tsv.gz, c.parquet, half.\n"
    _write(tmp_path, d__tsv=STS, tasks__yaml="mine: {kind: sts, file: a.tsv}\n")
    assert [task.name for task in local_tasks(tmp_path)] == ["mine"]
    assert "b.tsv.gz, c.parquet, d.tsv, half." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {kind: sts, file: a.tsv}\na: {kind: sts, file: b.tsv}\n", "line 2: a is written twice"),
        ("a: {kind: sts, kind: sts, file: a.tsv}\n", "kind is written twice"),
        ("a: {kind: sts, file: [a.tsv]}\n", "is not a map of task names"),
        ("? {a: b}\n: c\n", "is not a map of task names"),
        ("a: &x {kind: sts, file: &x [*x, *x]}\n", "is not"),
        ("a: " + "[" * 10_000 + "\n", "is not YAML"),
        ("", "is not a map of task names"),
        ('"a\\0b": {kind: sts, file: a.tsv}\n', "no control characters. Rename it"),
    ],
)
def test_a_manifest_has_each_name_once_and_nothing_but_names(tmp_path, text, words):
    _write(tmp_path, a__tsv=STS, tasks__yaml=text)
    with pytest.raises(UserError, match=words):
        local_tasks(tmp_path)


def test_two_columns_of_one_name_are_refused(tmp_path):
    _write(tmp_path, a__tsv="sentence1\tsentence2\tscore\tscore\nx\ty\t1\t2\n")
    with pytest.raises(UserError, match=r"a.tsv has 2 columns 'score'"):
        local_tasks(tmp_path)


def test_a_file_of_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    _write(tmp_path / "home", a__tsv=STS)
    _write(tmp_path, tasks__yaml="mine: {kind: sts, file: ~/a.tsv}\n")
    assert [task.name for task in local_tasks(tmp_path)] == ["mine"]


CORPUS = '{"_id": "d1", "title": "A", "text": "one"}\n{"_id": 2, "text": "two"}\n'
QUERIES = '{"_id": "q1", "text": "x"}\n'


def _beir(folder: Path, corpus: str, queries: str, qrels: str) -> Path:
    (folder / "r" / "qrels").mkdir(parents=True)
    _write(folder / "r", corpus__jsonl=corpus, queries__jsonl=queries)
    (folder / "r" / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}", encoding="utf-8")
    return folder


def test_a_beir_folder_is_a_search_with_titles_before_texts(tmp_path):
    (task,) = local_tasks(_beir(tmp_path, CORPUS, QUERIES, "q1\td1\t1.0\nq1\t2\t0\n"))
    assert (task.name, task.kind) == ("r", "retrieval")
    assert task.data["corpus"] == {"id": ["d1", "2"], "text": ["A one", "two"]}
    assert task.data["qrels"] == {"query": ["q1", "q1"], "document": ["d1", "2"], "score": [1, 0]}


@pytest.mark.parametrize(
    ("corpus", "qrels", "words"),
    [
        (CORPUS, "q1\td1\thigh\n", ["score = high is not a whole number"]),
        (CORPUS, "q1\td1\t1\nq1\t2\t0.7\n", ["score = 0.7 is not a whole number"]),
        (CORPUS, "q1\td1\t0\n", ["no score is above 0"]),
        (CORPUS, "q1\td9\t1\n", ["the document d9 is not among"]),
        (CORPUS, f"q1\td1\t{'9' * 400}\n", ["is not a whole number"]),
        (CORPUS, "q1\td1\t1\nq1\td1\t0\n", ["the query q1 and the document d1 have the scores 1 and 0"]),
        (CORPUS, "q9\td1\t1\n", ["the query q9 is not among"]),
        (CORPUS + CORPUS, "q1\td1\t1\n", ["corpus.jsonl: _id = d1 appears twice"]),
    ],
)
def test_a_search_that_could_score_nothing_is_a_sentence(tmp_path, corpus, qrels, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (every one has a sentence of its own)
        local_tasks(_beir(tmp_path, corpus, QUERIES, qrels))
    assert all(word in str(error.value) for word in words), error.value
