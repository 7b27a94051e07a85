"""Help in the order of work, with examples that are commands; -q anywhere; results for machines."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from unsee_dist import cli
from unsee_dist.cli.help import EXAMPLES, ORDER, PANELS, in_order
from unsee_dist.config.kinds import flat
from unsee_dist.config.sections import RunConfig

GROUP = typer.main.get_command(cli.app)


def unsee(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "unsee_dist", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"} | environment,
    )


def test_every_command_has_a_place_and_the_help_shows_them_in_the_order_of_work() -> None:
    names = GROUP.list_commands(None)
    assert set(names) <= set(ORDER), "name the new command in PANELS of cli/help.py"
    assert names == in_order(names)
    shown = unsee("--help").stdout
    places = [shown.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    rows = [shown.index(f"│ {name} ") for name in ("doctor", "prepare", "train", "evaluate", "export")]
    assert rows == sorted(rows)


@pytest.mark.parametrize("path", EXAMPLES)
def test_examples_fit_a_terminal_and_begin_with_their_command(path: str) -> None:
    for example in EXAMPLES[path]:
        assert len(example) <= 76
        words = shlex.split(example)
        launched = {"unsee_dist.train": ["train"], "unsee_dist": words[-1:]}
        if words[0] in ("deepspeed", "torchrun") or "python" in words:
            assert launched[next(word for word in words if word in launched)] == path.split()
        else:
            start = words.index("unsee") + 1
            assert words[start : start + len(path.split())] == path.split()
    shown = unsee(*path.split(), "--help").stdout
    assert "Examples:" in shown
    assert all(example in shown for example in EXAMPLES[path])


def test_quiet_may_stand_anywhere_and_leaves_results(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join(f"sentence number {n} of this text" for n in range(50)))
    loud = unsee("prepare", str(tmp_path / "text"), "--out", str(tmp_path / "a"))
    for arguments in (("-q", "prepare"), ("prepare", "--quiet")):
        quiet = unsee(*arguments, str(tmp_path / "text"), "--out", str(tmp_path / "b"))
        assert quiet.returncode == 0, quiet.stderr
        assert "fingerprint" in quiet.stdout
        assert len(quiet.stderr) <= len(loud.stderr)


def test_no_color_is_respected_and_version_is_one_line() -> None:
    assert "\x1b[" in unsee("--help", FORCE_COLOR="1").stdout
    plain = unsee("--help", FORCE_COLOR="1", NO_COLOR="1").stdout
    assert not any(f"\x1b[{colour}" in plain for colour in (31, 32, 33, 34, 35, 36, 38))
    assert unsee("--version").stdout == f"unsee_dist {cli.__version__}\n"


def test_a_launchers_local_rank_is_not_an_option_of_ours() -> None:
    assert unsee("--local_rank=3", "config", "ls", "--json").returncode == 0
    assert unsee("--local_rok=3", "config", "ls").returncode == 2


def test_a_machine_reads_presets_and_the_shell_completes_them_and_settings() -> None:
    presets = json.loads(unsee("config", "ls", "--json").stdout)
    assert presets["byol"].startswith("BYOL")
    completed = unsee(_UNSEE_COMPLETE="complete_bash", COMP_WORDS="unsee train unsee-v", COMP_CWORD="2")
    assert "unsee-vicreg" in completed.stdout
    keys = cli.training.settings_that_begin("train.w")
    assert keys == ["train.warmup=", "train.weight_decay="]
    assert {key.removesuffix("=") for key in cli.training.settings_that_begin("")} == set(flat(RunConfig()))


def test_json_of_a_search_is_refused() -> None:
    wrong = unsee("sweep", "tiny", "--json")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--json needs --status DIR" in wrong.stderr
