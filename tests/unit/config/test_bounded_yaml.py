"""YAML that is more than it looks: aliases that grow, nesting without end, tags that claim what is not there."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml

from unsee_dist.config import bounded_yaml
from unsee_dist.config import load as load_config
from unsee_dist.errors import UserError
from unsee_dist.evaluation.local_tasks import local_tasks

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MAPS = "a0: &a0 {k: x}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{key}: *a{n - 1}' for key in range(9))}}}\n" for n in range(1, 12)
)
BAD = {
    "aliases of lists": LAUGHS,
    "aliases of maps": MAPS,
    "an alias of itself": "a: &a [*a]\n",
    "an alias of a map around it": "a: &a {b: *a}\n",
    "nested lists": "a: " + "[" * 400,
    "nested maps": "{a: " * 400,
    "nested blocks": "".join(f"{' ' * depth}a:\n" for depth in range(500)),
    "a number that is none": "a: !!int x\n",
    "an empty number": "a: !!int ''\n",
    "a time that is none": "a: !!timestamp x\n",
    "a number of a map": "a: !!float {}\n",
    "a list as key": "? [a, b]\n: c\n",
    "an object of Python": "a: !!python/object/apply:os.system [ls]\n",
    "an alias of nothing": "a: *b\n",
    "not text": "a: \x00\n",
    "too long": "a: " + "x" * (1 << 20),
    "a list": "- a\n",
    "nothing": "",
}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "stands for more than 100,000 values"),
        (MAPS, "stands for more than 100,000 values"),
        (BAD["nested blocks"], "nested more than 40 deep"),
        (BAD["too long"], "longer than 1 MiB"),
    ],
)
def test_what_is_beyond_the_bounds_is_refused_for_that(text: str, why: str) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        bounded_yaml.compose(text)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_is_no_map_of_tasks_is_a_sentence_in_little_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "tasks.yaml").write_text(text)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"tasks\.yaml"):
        local_tasks(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


@pytest.mark.parametrize(
    "text", [text for text in BAD.values() if text], ids=[k for k in BAD if k != "nothing"]
)
def test_the_same_as_a_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml") as failure:
        load_config(str(path))
    assert len(str(failure.value)) < 50_000


def test_aliases_and_merged_maps_within_the_bounds_are_read() -> None:
    text = "base: &base {a: 1, b: [x, y]}\nown: {<<: *base, b: &b 2.5}\nagain: [*b, *b]\n"
    assert isinstance(bounded_yaml.compose(text), yaml.MappingNode)
    assert bounded_yaml.compose("") is None


def test_what_an_alias_stands_for_counts_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &a [1, 2, 3]\nb: [*a, *a]\n"  # 1 map, 2 keys, 1 + 3, 1 + 4 + 4
    monkeypatch.setattr(bounded_yaml, "VALUES", 16)
    bounded_yaml.compose(text)
    monkeypatch.setattr(bounded_yaml, "VALUES", 15)
    with pytest.raises(yaml.YAMLError, match="stands for more than 15 values"):
        bounded_yaml.compose(text)
