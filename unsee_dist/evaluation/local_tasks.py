"""Tasks of your own from a folder of files, recognised by their columns, or named in `tasks.yaml`.

    kind                 files                                        columns (or keys of a .jsonl)
    sts                  NAME.tsv                                     sentence1, sentence2, score
    pair_classification  NAME.tsv                                     sentence1, sentence2, label (0 or 1)
    classification       NAME_train.tsv and NAME_test.tsv             text, label
    clustering           NAME.tsv                                     text, label
    reranking            NAME.jsonl                                   query, positive [...], negative [...]
    questions            NAME.tsv (dev.tsv of `unsee prepare --dev`)  query, answer: one right answer among all
    retrieval            NAME/ corpus.jsonl, queries.jsonl (BEIR)     _id, text (and title)
                         NAME/ qrels/test.tsv                         query-id, corpus-id, score

.csv and .jsonl do as well as .tsv. A `tasks.yaml` in the folder names the tasks itself, paths relative to it:

    intents: {kind: classification, train: a.tsv, test: b.tsv}
    topics: {kind: clustering, file: c.tsv}
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xxhash
import yaml

from unsee_dist.config import bounded_yaml
from unsee_dist.config.section import at_home
from unsee_dist.config.spelling import closest
from unsee_dist.errors import UserError, refusals
from unsee_dist.evaluation.sts_files import FIRST, SCORE, SECOND
from unsee_dist.evaluation.tables import TABLES, header, is_table
from unsee_dist.evaluation.task_files import BEIR, LABEL, READERS, TEXT, Data
from unsee_dist.files.remote import check_here
from unsee_dist.files.trees import read_within
from unsee_dist.log import LOG

MANIFEST = "tasks.yaml"
Tasks = dict[str, tuple[str, dict[str, Path]]]  # name -> kind and files
# The columns of each kind, tried in this order: by "label" alone, an STS file whose score is called label would be a
# clustering of its sentences.
RECOGNISED = {
    "reranking": (("query",), ("positive",), ("negative",)),
    "questions": (("query",), ("answer",)),
    "sts": (FIRST, SECOND, tuple(name for name in SCORE if name != "label")),
    "pair_classification": (FIRST, SECOND, LABEL),
    "clustering": (TEXT, LABEL),
}


class LocalTask(NamedTuple):
    """A task and all its data. digest: of the kind and the files' bytes, so a changed file is another task."""

    name: str
    kind: str
    digest: str
    data: Data


def local_tasks(folder: Path) -> list[LocalTask]:
    """The tasks of a folder, by name. UserError: no task, a missing column, a wrong label."""
    check_here(folder, "--tasks ", "give its folder.")
    if not folder.is_dir():
        raise UserError(f"--tasks {folder} is not a folder. Give the folder that holds the task files.")
    if (folder / BEIR[0]).is_file() and not (folder / MANIFEST).is_file():
        raise UserError(
            f"--tasks {folder} is itself a BEIR folder. Give the folder that contains it: {folder.resolve().parent}"
        )
    described = _described(folder) if (folder / MANIFEST).is_file() else _recognised(folder)
    if not described:
        raise UserError(
            f"--tasks {folder} holds no task: no {MANIFEST}, no {', '.join(TABLES)} and no BEIR folder. Give the folder of the task files."
        )
    if left := _left_out(folder, described):
        LOG.warning(f"--tasks {folder}: no task is made of {', '.join(left)}.")
    source = f" ({folder / MANIFEST} names it)" if (folder / MANIFEST).is_file() else ""
    return [_read(name, kind, files, source) for name, (kind, files) in sorted(described.items())]


def _described(folder: Path) -> Tasks:
    path = folder / MANIFEST
    tasks: Tasks = {}
    for name, task in _manifest(path).items():
        where, kind = f"{path}, {name}", str(task.get("kind"))
        if "/" in name or name.startswith(".") or not name.isprintable():
            raise UserError(
                f"{path}, {name!r}: the name is the file name of its scores, so it has no /, no dot in front and no control "
                "characters. Rename it."
            )
        if kind not in READERS:
            raise UserError(f"{where}: kind = {kind} is unknown{_meant(kind)}. Kinds: {', '.join(READERS)}.")
        wanted = {"classification": {"train", "test"}, "retrieval": {"folder"}}.get(kind, {"file"})
        if set(task) != wanted | {"kind"}:
            raise UserError(
                f"{where}: the keys are {', '.join(task)}. Write kind, {', '.join(sorted(wanted))}."
            )
        for part in wanted:
            check_here(task[part], f"{where}: {part} = ", "write its path.")
        try:
            tasks[name] = (kind, {part: folder / at_home(task[part]) for part in sorted(wanted)})
        except UserError as error:
            raise UserError(f"{where}: {error}.") from error
    return tasks


def _manifest(path: Path) -> dict[str, dict[str, str]]:
    """The maps of tasks.yaml. Its nodes are read, where a name that is written twice is seen, and an alias is no value."""
    try:
        root = bounded_yaml.compose(read_within(path, bounded_yaml.BYTES, "Correct it.").decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}. Correct it.") from error
    wrong = UserError(f"{path} is not a map of task names. Write NAME: {{kind: ..., file: ...}}.")
    tasks: dict[str, dict[str, str]] = {}
    for name, node in _entries(root, path, wrong):
        tasks[name] = {}
        for key, value in _entries(node, path, wrong):
            if not isinstance(value, yaml.ScalarNode):
                raise wrong
            tasks[name][key] = str(value.value)
    return tasks


def _entries(node: yaml.Node | None, path: Path, wrong: UserError) -> Iterator[tuple[str, yaml.Node]]:
    """The entries of a map, each key once."""
    if not isinstance(node, yaml.MappingNode):
        raise wrong
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise wrong
        if key.value in seen:
            line = key.start_mark.line + 1
            raise UserError(f"{path}, line {line}: {key.value} is written twice. Rename one, or delete it.")
        seen.add(key.value)
        yield key.value, value


def _meant(kind: str) -> str:
    near = closest(kind, READERS)
    return f" (did you mean {near}?)" if near else ""


def _recognised(folder: Path) -> Tasks:
    tables: dict[str, Path] = {}
    for path in sorted(path for path in folder.iterdir() if is_table(path)):
        if path.stem in tables:
            raise _same_name(path.stem, tables[path.stem], path)
        tables[path.stem] = path
    tasks: Tasks = {}
    for inner in sorted(path for path in folder.iterdir() if (path / BEIR[0]).is_file()):
        _add(tasks, inner.name, "retrieval", {"folder": inner})
    for stem in [stem for stem in tables if stem.endswith("_train")]:
        name = stem.removesuffix("_train")
        if f"{name}_test" in tables:
            both = {"train": tables.pop(stem), "test": tables.pop(f"{name}_test")}
            _add(tasks, name, "classification", both)
    for name, path in tables.items():
        kind = _kind(path)
        if kind == "clustering" and name.endswith(("_train", "_test")):
            raise UserError(
                f"{path} is one of the two files of a classification, NAME_train and NAME_test. Add the other one, or "
                "rename this file if it is a clustering."
            )
        _add(tasks, name, kind, {"file": path})
    return tasks


def _add(tasks: Tasks, name: str, kind: str, files: dict[str, Path]) -> None:
    if name in tasks:
        raise _same_name(name, *(next(iter(each.values())) for each in (tasks[name][1], files)))
    tasks[name] = (kind, files)


def _same_name(name: str, first: Path, second: Path) -> UserError:
    return UserError(
        f"{first} and {second} would both be the task {name}. Rename one, or name both in {MANIFEST}."
    )


def _left_out(folder: Path, tasks: Tasks) -> list[str]:
    """What lies in the folder and belongs to no task; hidden files and a README are nobody's data."""
    used = {os.path.realpath(path) for _, files in tasks.values() for path in files.values()}
    return [
        path.name
        for path in sorted(folder.iterdir())
        if os.path.realpath(path) not in used
        and path.name != MANIFEST
        and not path.name.startswith((".", "README"))
    ]


def _kind(path: Path) -> str:
    names_here = header(path)
    for kind, wanted in RECOGNISED.items():
        if all(set(names_here) & set(names) for names in wanted):
            return kind
    needs = "; ".join(
        f"{kind}: {', '.join(names[0] for names in wanted)}" for kind, wanted in RECOGNISED.items()
    )
    raise UserError(f"{path} has the columns {', '.join(names_here)}, which no kind of task has. {needs}.")


def _read(name: str, kind: str, files: dict[str, Path], source: str) -> LocalTask:
    """source: words about who names the files."""
    digest = xxhash.xxh3_128(kind.encode())
    for part, path in sorted(files.items()):
        for data in _contents(path, f"task {name}", f"{source}. A {kind} task needs it."):
            digest.update(f" {part} {len(data)} ".encode())
            digest.update(data)
    return LocalTask(name, kind, digest.hexdigest()[:16], READERS[kind](files))


def _contents(path: Path, task: str, why: str) -> list[bytes]:
    """The bytes of a file, or of the files of a BEIR folder."""
    with refusals(lambda refused: f"{task}: {path} cannot be read ({refused.strerror}){why}"):
        files = sorted(path / inner for inner in BEIR) if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                raise UserError(f"{task}: {file} is missing{why}")
        return [file.read_bytes() for file in files]
