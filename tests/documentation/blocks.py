"""The commands in the ```bash blocks of README.md, docs/ and the README of cluster/, each parsed by what it would be run by.

    unsee, python -m unsee_dist, deepspeed, torchrun, slurm/*.sh      typer's parser, then the loader of configurations
    make, pytest, pip, scripts                                        targets, paths and extras exist

Nothing is run. Words in capitals (RUN, DIR, CONFIG) are the reader's.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from integration.tiny import REPOSITORY
from typer._click.exceptions import BadParameter, UsageError
from typer.main import get_command

from unsee_dist.cli import app
from unsee_dist.config import load
from unsee_dist.config.load import checked
from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.errors import UserError
from unsee_dist.sweep.load import load_sweep

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("sh", "shell", "console", "zsh")  # not checked, and so not used
OTHERS = {
    *(
        "git",
        "cd",
        ".",
        "source",
        "set",
        "export",
        "head",
        "kill",
        "kubectl",
        "curl",
        "mlflow",
        "tensorboard",
        "podman",
        "docker",
        "apptainer",
    ),
    *("apt-get", "mkdir", "cp", "zcat", "cat", "ls", "sinfo", "for", "done"),
}
# What other commands make, and a shape like it.
MADE = {
    "sweeps/tiny/report/best.yaml": "unsee-vicreg",
    "wheelhouse/install.sh": "cluster/airgapped/install.sh",
}
SCRIPTS = ("train", "prepare", "evaluate", "sweep")  # slurm/X.sh is unsee X
WITH_VALUE = {
    "deepspeed": ("--hostfile", "--num_accelerators", "--num_gpus"),
    "torchrun": ("--nproc-per-node", "--nnodes"),
}


class Wrong(AssertionError):
    """A command that could not be run as it stands."""


class Command(NamedTuple):
    place: str
    words: list[str]


def pages() -> list[Path]:
    docs = [path for path in (REPOSITORY / "docs").rglob("*.md") if "build" not in path.parts]
    return sorted([REPOSITORY / "README.md", REPOSITORY / "cluster" / "README.md", *docs])


def blocks(page: Path, language: str = "bash") -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def documented() -> Iterator[Command]:
    for page in pages():
        for block in blocks(page):
            for words in commands(block):
                yield Command(str(page.relative_to(REPOSITORY)), words)


def commands(block: str) -> list[list[str]]:
    """The simple commands of a block: without comments, redirections, assignments and the words of a loop."""
    simple: list[list[str]] = []
    for line in block.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line)
        inner = re.findall(r"[$<]\(([^)]*)\)", line)
        outer = re.sub(r"[$<]\([^)]*\)", "MADE_BY_A_COMMAND", line)
        for text in (outer, *inner):
            simple += _simple(text)
    return simple


def _simple(text: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if skip:
            skip = False
        elif token in ("<", ">", ">>"):
            skip = True
        elif set(token) <= set("();|&"):
            while words and (words[0] == "do" or re.match(r"[A-Za-z_]\w*=", words[0])):
                words.pop(0)
            if words:
                yield words
            words = []
        else:
            words.append(token)


def check(words: Sequence[str]) -> None:
    """Wrong, or another error with a reason: this command cannot be run as it stands. The current folder is a clone."""
    program, *rest = words
    name = program.removeprefix(".venv/bin/")
    if name == "unsee":
        check_unsee(rest)
    elif name.startswith("python"):
        _check_python(rest)
    elif name in WITH_VALUE:
        _check_launcher(name, rest)
    elif name == "make":
        _check_make(rest)
    elif name == "pytest":
        _exist(word for word in rest if "/" in word)
    elif name == "pip":
        _check_pip(rest)
    elif name == "sbatch":
        _check_sbatch(rest)
    elif name == "srun":
        check(_after_options(rest))
    elif name.endswith(".sh"):
        _exist([name])
    elif name not in OTHERS:
        raise Wrong(f"{name} is a program that no test knows")


@cache
def all_commands() -> Any:
    """Made once: it takes half a second."""
    return get_command(app)


def check_unsee(words: Sequence[str]) -> None:
    if list(words) == ["--version"]:
        return
    command, path = all_commands(), "unsee"
    rest = [word for word in words if word not in ("...", "[OPTIONS]")]
    while hasattr(command, "commands"):
        if not rest or rest[0] not in command.commands:
            raise Wrong(f"{path} has no command {' '.join(rest[:1])}")
        path, command = f"{path} {rest[0]}", command.commands[rest.pop(0)]
    try:
        given = command.make_context(path, rest).params
    except BadParameter as error:
        if "does not exist" not in error.message:  # folders are the reader's
            raise
        return
    except UsageError as error:
        raise Wrong(f"{path}: {error.message}") from error
    _check_settings(given)


def _check_settings(given: dict[str, Any]) -> None:
    overrides = [_of_the_reader(word) for word in given.get("overrides") or () if not word.startswith("[")]
    if given.get("config"):
        name = given["config"]
        load(MADE.get(name, "unsee-vicreg" if name.isupper() else name), overrides)
    if given.get("sweep"):
        load_sweep(given["sweep"], overrides)
    if "min_words" in given:
        checked(PrepareSettings, {name: given[name] for name in PrepareSettings.model_fields})


def _of_the_reader(override: str) -> str:
    """seed=S, train.steps=N: a number."""
    return re.sub(r"=[A-Z]$", "=1", override)


def _check_python(words: Sequence[str]) -> None:
    first, *rest = words
    if first == "-c":
        compile(rest[0], "-c", "exec")
    elif first == "-m" and rest[0] == "unsee_dist":
        check_unsee(rest[1:])
    elif first == "-m" and rest[0] == "unsee_dist.train":
        check_unsee(["train", *rest[1:]])
    elif first == "unsee_dist/train.py":
        check_unsee(["train", *rest])
    elif first == "-m":
        if find_spec(rest[0]) is None:
            raise Wrong(f"python has no module {rest[0]}")
    else:
        _exist([first])


def _after_options(words: Sequence[str]) -> list[str]:
    """Slurm's options are written --name=value here."""
    rest = list(words)
    while rest and rest[0].startswith("--"):
        rest.pop(0)
    if not rest:
        raise Wrong(f"nothing is started by {' '.join(words)}")
    return rest


def _check_launcher(name: str, words: Sequence[str]) -> None:
    rest = list(words)
    while rest and rest[0] in WITH_VALUE[name]:
        rest = rest[2:]
    script = rest[1:] if rest[:1] in (["--module"], ["-m"]) else rest
    if script[:1] == ["unsee_dist"]:
        check_unsee(script[1:])
        return
    if not script or script[0] not in ("unsee_dist.train", "unsee_dist/train.py"):
        raise Wrong(f"{name} is given {' '.join(rest[:2])}")
    if "--config" not in script:
        raise Wrong(f"{name}: the script wants --config")
    check_unsee(["train", *script[1:]])


def _check_make(words: Sequence[str]) -> None:
    targets = re.findall(r"^([\w/.-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if "=" not in word and word not in (*targets, ".venv/stamp"):
            raise Wrong(f"make has no target {word}")


def _check_pip(words: Sequence[str]) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for wanted in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
        if unknown := set(wanted.split(",")) - set(project["optional-dependencies"]):
            raise Wrong(f"there is no extra {unknown}")


def _check_sbatch(words: Sequence[str]) -> None:
    rest = _after_options(words)
    match = re.fullmatch(r"slurm/([\w-]+)\.sh", rest[0])
    if match is None or match[1] not in SCRIPTS:
        raise Wrong(f"sbatch is given {rest[:1]}")
    _exist(rest[:1])
    check_unsee([match[1], *rest[1:]])


def _exist(paths: Any) -> None:
    for path in paths:
        if not (REPOSITORY / MADE.get(path, path)).exists():
            raise Wrong(f"{path} is not in the repository")


MISTAKES = (Wrong, UserError, UsageError, SyntaxError)
