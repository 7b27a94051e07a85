"""What the docs tell a reader to write exists: commands, options, keys, presets, files, targets, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documentation import blocks
from documentation.blocks import MISTAKES, REPOSITORY, Command

from unsee_dist.config.load import LEGAL, SECTIONS

README = REPOSITORY / "README.md"


@pytest.fixture(autouse=True)
def in_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def test_every_command_of_the_docs_can_be_written() -> None:
    wrong, seen = [], list(blocks.documented())
    for command in seen:
        try:
            blocks.check(command.words)
        except MISTAKES as error:
            wrong.append(f"{command.place}: {' '.join(command.words)}\n    {error}")
    assert not wrong, "\n".join(wrong)
    assert len([1 for command in seen if command.words[0] == "unsee"]) > 40
    assert {"README.md", "cluster/README.md", "docs/tutorial.md"} <= {command.place for command in seen}


@pytest.mark.parametrize(
    "line",
    [
        "unsee trian unsee-vicreg",
        "unsee train unsee-vicrek",
        "unsee train unsee-vicreg train.btach=3",
        "unsee train unsee-vicreg train.batch=one",
        "unsee train unsee-vicreg --lr 3",
        "unsee shards heads data/mine",
        "unsee prepare a --ot b",
        "unsee prepare a --out b --min-words 9 --max-words 3",
        "unsee sweep tiny sweep.trails=3",
        "unsee export runs/mine",
        "cat x | unsee checkpoint sl RUN",
        "A=b unsee config shwo unsee-vicreg",
        "for x in a b; do unsee evaluate $x --tsks d; done",
        "deepspeed --num_gpus 8 unsee_dist/train.py --config unsee-vicreg train.btach=3",
        "deepspeed unsee_dist/train.py unsee-vicreg",
        "torchrun --nproc-per-node 2 -m unsee_dist.trian --config unsee-vicreg",
        "torchrun --nproc-per-node 2 -m unsee_dist doctr",
        "srun --nodes=2 unsee doctr",
        "srun --nodes=2",
        "python -m unsee_dist train unsee-vicrek",
        "python nothing.py",
        "python -m nothing_of_this_name",
        "python -c 'print('",
        "sbatch --nodes=2 slurm/train.sh unsee-vicreg train.btach=3",
        "sbatch slurm/trian.sh unsee-vicreg",
        "make nothing",
        "pytest tests/nothing.py",
        "pip install 'unsee_dist[nothing]'",
        "cluster/nothing.sh",
        "frobnicate x",
    ],
)
def test_a_command_that_is_wrong_would_be_seen(line: str) -> None:
    [*_, words] = [each for each in blocks.commands(line) if each[0] not in ("cat", "for", "done")]
    with pytest.raises(MISTAKES):
        blocks.check(words)


def test_a_block_is_taken_apart_as_a_shell_would() -> None:
    block = "a 'b c' \\\n  d # not e\nX=1 f <(g h) | i && j > k\nl $(m n)\n"
    assert blocks.commands(block) == [
        ["a", "b c", "d"],
        ["f", "MADE_BY_A_COMMAND"],
        ["i"],
        ["j"],
        ["g", "h"],
        ["l", "MADE_BY_A_COMMAND"],
        ["m", "n"],
    ]


@pytest.mark.parametrize("page", blocks.pages(), ids=lambda page: page.name)
def test_no_commands_hide_in_a_block_that_is_not_checked(page: Path) -> None:
    for language in blocks.SHELLS:
        assert not blocks.blocks(page, language), f"write ```bash for ```{language}"


@pytest.mark.parametrize("page", blocks.pages(), ids=lambda page: page.name)
def test_keys_in_the_text_exist(page: Path) -> None:
    code = re.findall(r"`([a-z]+\.[a-z_0-9]+)(?:[=:][^`]*)?`", page.read_text(encoding="utf-8"))
    named = [key for key in code if key.partition(".")[0] in SECTIONS and not key.endswith((".py", ".sh"))]
    assert not [key for key in named if key not in LEGAL]


@pytest.mark.parametrize("page", [README, REPOSITORY / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Sphinx looks at those of docs/."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_is_short() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 180


def test_the_readmes_numbers_are_those_of_the_results() -> None:
    """Each row of its table has numbers of the same row of docs/results/encoders.md; the laws' bound is the table's."""

    def rows(path: Path) -> dict[str, list[str]]:
        found = re.findall(r"^\| `([\w-]+)` \|(.*)\|$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return {
            name: re.findall(r"\d+\.\d+", cells) for name, cells in reversed(found)
        }  # of a name, the first

    ours, measured = rows(README), rows(REPOSITORY / "docs" / "results" / "encoders.md")
    assert len(ours) == 5
    before = "55.3"  # of the test: in the head of the measured table
    assert f"(before: {before})" in (REPOSITORY / "docs" / "results" / "encoders.md").read_text()
    for name, numbers in ours.items():
        assert set(numbers) - {before} <= set(measured[name]), name
    laws = (REPOSITORY / "docs" / "explanation" / "laws.md").read_text()
    [bound] = re.findall(r"to (\d\.\de-\d) in any weight", README.read_text())
    assert f"| {bound} |" in laws


def test_peers_have_the_versions_that_were_read() -> None:
    [version] = re.findall(r"sentence-transformers (\d+\.\d+\.\d+),", README.read_text())
    assert f"\nsentence-transformers=={version}\n" in (REPOSITORY / "constraints.txt").read_text()


def test_a_place_is_named() -> None:
    assert next(blocks.documented()) == Command("README.md", ["make", "quickstart"])
