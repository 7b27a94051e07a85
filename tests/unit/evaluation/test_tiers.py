"""What the tiers hold, by mteb's own lists, which need no network."""

from __future__ import annotations

from collections import Counter

import pytest

from unsee_dist.evaluation.mteb_suite import published
from unsee_dist.evaluation.score_table import GROUPS


def test_v1_is_the_papers_benchmark_of_56_tasks_in_seven_groups() -> None:
    chosen = published(["v1"])
    of_group = Counter(one.group for one in chosen)  # arXiv:2210.07316, table 1
    assert [of_group[group] for group in GROUPS] == [12, 11, 3, 4, 15, 10, 1]
    assert {one.benchmark for one in chosen} == {"MTEB(eng, v1)"}
    (sts17,) = [one for one in chosen if one.name == "STS17"]
    assert sts17.task.hf_subsets == ["en-en"]  # by its name alone it would be cross-lingual


@pytest.mark.parametrize(
    ("tier", "tasks", "groups"), [("v2", 41, 7), ("fast", 10, 7), ("sts", 8, 1)]
)  # fmt: skip
def test_other_tiers(tier: str, tasks: int, groups: int) -> None:
    chosen = published([tier])
    assert len(chosen) == tasks
    assert len({one.group for one in chosen}) == groups
    assert {one.benchmark for one in chosen} == {"MTEB(eng, v2)" if tier == "v2" else "MTEB(eng, v1)"}


def test_a_task_of_two_tiers_is_judged_once() -> None:
    names = [one.name for one in published(["sts", "fast", "STSBenchmark"])]
    assert len(names) == len(set(names)) == 8 + 10 - 2
