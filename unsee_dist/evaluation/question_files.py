"""Sets of questions and their answers, from tables on disk."""

from collections.abc import Sequence
from pathlib import Path

from unsee_dist.errors import UserError
from unsee_dist.evaluation.tables import columns, setting_named
from unsee_dist.metrics.retrieval import Questions, make_questions


def load_questions(source: str | Path) -> Questions:
    """Questions from a .tsv, .csv or .jsonl file with the columns query and answer; UserError otherwise."""
    rows = columns(Path(source), (("query",), ("answer",)))
    return make_questions([(str(query), str(answer)) for query, answer in rows], str(source))


def load_question_sets(sources: str | Sequence[str]) -> dict[str, Questions]:
    """Several files by their stems. UserError: two share one."""
    sets: dict[str, Questions] = {}
    for source in [sources] if isinstance(sources, str) else sources:
        name = Path(source).stem
        if name in sets:
            raise UserError(f"evaluate.retrieval: two files are called {name}. Rename one.")
        with setting_named("evaluate.retrieval"):
            sets[name] = load_questions(source)
    return sets
