"""What the tiers hold, by mteb's own lists, which need no network."""

from __future__ import annotations

from collections import Counter

import pytest

from unsee_dist.errors import UserError
from unsee_dist.evaluation.mteb_suite import prefetch, published
from unsee_dist.evaluation.score_table import GROUPS


def test_v1_is_the_papers_benchmark_of_56_tasks_in_seven_groups() -> None:
    tasks = published(["v1"])
    of_group = Counter(task.group for task in tasks)  # arXiv:2210.07316, table 1
    assert [of_group[group] for group in GROUPS] == [12, 11, 3, 4, 15, 10, 1]
    assert {task.benchmark for task in tasks} == {"MTEB(eng, v1)"}
    (sts17,) = [task for task in tasks if task.name == "STS17"]
    assert sts17.task.hf_subsets == ["en-en"]  # by its name alone it would be cross-lingual


@pytest.mark.parametrize(
    ("tier", "count", "groups"), [("v2", 41, 7), ("fast", 10, 7), ("sts", 8, 1)]
)  # fmt: skip
def test_other_tiers(tier: str, count: int, groups: int) -> None:
    tasks = published([tier])
    assert len(tasks) == count
    assert len({task.group for task in tasks}) == groups
    assert {task.benchmark for task in tasks} == {"MTEB(eng, v2)" if tier == "v2" else "MTEB(eng, v1)"}


def test_a_task_of_two_tiers_is_evaluated_once() -> None:
    names = [task.name for task in published(["sts", "fast", "STSBenchmark"])]
    assert len(names) == len(set(names)) == 8 + 10 - 2


def test_a_bug_of_ours_while_mteb_loads_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = published(["STSBenchmark"])
    bug = eval(compile("lambda *_: [0 for (_,) in ((),)]", "bug", "eval"), {"__name__": "unsee_dist.bug"})
    monkeypatch.setattr(task.task, "load_data", bug)
    with pytest.raises(ValueError, match="unpack") as caught:
        prefetch(task)
    assert not isinstance(caught.value, UserError)


def test_data_that_cannot_be_loaded_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = published(["STSBenchmark"])

    def load_data() -> None:
        raise ValueError("Couldn't find cache for mteb/stsbenchmark-sts")

    monkeypatch.setattr(task.task, "load_data", load_data)
    with pytest.raises(
        UserError, match=r"STSBenchmark is not on this machine .* --tier STSBenchmark --prefetch"
    ):
        prefetch(task)
