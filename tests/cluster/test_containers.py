"""The recipes of the images where no container engine is: read, compared, linted, and their commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from integration import tiny as launch
from integration.tiny import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
CONTAINERFILE, APPTAINER = CLUSTER / "Containerfile", CLUSTER / "apptainer.def"
INSIDE = "/opt/unsee"  # of an image: what a build copies
LINTERS = ("dockerfile-utils@0.16.3", "dclint@3.1.0")


class Step(NamedTuple):
    instruction: str
    words: str


def containerfile(text: str) -> list[Step]:
    """Its instructions, each on one line."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    lines = [line for line in plain.replace("\\\n", " ").splitlines() if line.strip()]
    return [Step(*line.split(maxsplit=1)) for line in lines]


def sections(text: str) -> dict[str, list[str]]:
    """The sections of Apptainer's definition, a command a line."""
    parts = re.split(r"^%(\w+)$", text, flags=re.MULTILINE)
    return {
        name: [line.strip() for line in body.splitlines() if line.strip()]
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def of(instruction: str) -> list[str]:
    return [step.words for step in STEPS if step.instruction == instruction]


STEPS = containerfile(CONTAINERFILE.read_text())
SECTIONS = sections(APPTAINER.read_text())
# The commands, one at a time.
RUNS = [part.strip() for words in of("RUN") for part in words.split("&&")]
ENV = dict(word.split("=", 1) for words in of("ENV") for word in shlex.split(words))


def test_both_recipes_run_the_same_commands_on_the_same_files() -> None:
    shared = [command for command in RUNS if not command.startswith(("mkdir", "useradd"))]
    assert [re.sub(r"\s+", " ", each) for each in shared] == [
        each for each in SECTIONS["post"] if not each.startswith("export ")
    ]
    exported = [
        line for name in ("post", "environment") for line in SECTIONS[name] if line.startswith("export ")
    ]
    given = dict(word.split("=", 1) for line in exported for word in line.split()[1:])
    assert given == {name: value for name, value in ENV.items() if name != "HF_HOME"}
    copied = [tuple(path.rstrip("/") for path in words.split()) for words in of("COPY")]
    assert copied == [tuple(line.split()) for line in SECTIONS["files"]]
    assert all(target.startswith(INSIDE) for _, target in copied)
    assert of("FROM") == re.findall(r"^From: (.*)$", APPTAINER.read_text(), re.MULTILINE)


def test_every_installation_is_by_the_lock_and_the_python_is_one_that_is_tested() -> None:
    installed = [command for command in RUNS if command.startswith("pip install")]
    assert len(installed) == 2
    assert all(f"--constraint {INSIDE}/constraints.txt" in command for command in installed)
    assert "torch" in shlex.split(installed[0])  # first and alone
    [image] = of("FROM")
    assert re.fullmatch(r"python:3\.1[1-3]-slim", image)


@pytest.mark.parametrize("path", [CONTAINERFILE, APPTAINER, CLUSTER / "mlflow/compose.yaml"])
def test_images_have_their_ordinary_names(path: Path) -> None:
    names = re.findall(r"^\s*(?:FROM|From:|image:) (\S+)", path.read_text(), re.MULTILINE)
    assert names
    assert not [name for name in names if "/" in name]


def test_every_command_is_one_that_a_shell_reads() -> None:
    for script in (
        *of("RUN"),
        *("\n".join(SECTIONS[name]) for name in ("post", "environment", "runscript", "test")),
    ):
        launch.succeed(["sh", "-n", "-c", script])
    assert launch.run(["sh", "-n", "-c", f"{of('RUN')[0]} && ("]).returncode != 0  # the control


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs Debian, as the image is")
def test_what_is_installed_from_debian_is_there() -> None:
    [command] = [each for each in RUNS if each.startswith("apt-get install")]
    simulated = launch.run([*shlex.split(command), "--simulate"])
    if "Unable to locate" in simulated.stderr and not list(Path("/var/lib/apt/lists").glob("*Packages*")):
        pytest.skip("needs apt-get update once")
    assert simulated.returncode == 0, simulated.stderr


@pytest.mark.slow
def test_the_commands_of_the_image_install_every_command_of_the_package(tmp_path: Path) -> None:
    """In a new environment that has the packages of this one, but not ours: what the lock names is then there already, and anything
    else would have to be downloaded, which is forbidden here."""
    context, environment = tmp_path / "opt", tmp_path / "environment"
    context.mkdir()
    shutil.copy(REPOSITORY / "constraints.txt", context)
    source = copy_of_the_repository(tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    launch.succeed(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", str(source)],
        cwd=context,
        timeout_s=300,
    )
    venv.create(environment, with_pip=True, symlinks=True)
    see_all_but_ours(environment)
    env = launch.environment(
        **ENV, PIP_NO_INDEX="1", PATH=f"{environment}/bin:/usr/bin:/bin", HOME=str(tmp_path)
    )
    env.pop("PYTHONPATH", None)
    for command in RUNS:
        if command.startswith("pip "):
            done = launch.succeed(
                ["sh", "-ec", command.replace(INSIDE, str(context))], cwd=tmp_path, env=env, timeout_s=500
            )
    assert "Successfully installed unsee_dist-" in done.stdout.replace("unsee-dist", "unsee_dist")
    [check] = SECTIONS["test"]
    assert launch.succeed(["sh", "-ec", check], cwd=tmp_path, env=env).stdout.startswith("unsee_dist ")
    [start] = [json.loads(words) for words in of("CMD")]
    assert "train" in launch.succeed(start, cwd=tmp_path, env=env).stdout
    launch.succeed(["unsee", "config", "check", "unsee-vicreg"], cwd=tmp_path, env=env)
    made = tmp_path / "project"
    launch.succeed(["unsee", "init", str(made)], cwd=tmp_path, env=env)
    for path in (CONTAINERFILE, APPTAINER, CLUSTER / "compose.yaml"):  # the wheel has them
        assert (made / "cluster" / path.name).read_bytes() == path.read_bytes()


def copy_of_the_repository(folder: Path) -> Path:
    for name in filter(None, launch.run(["git", "-C", str(REPOSITORY), "ls-files"]).stdout.split("\n")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


def see_all_but_ours(environment: Path) -> None:
    """setuptools, too: torch needs a newer one than Python 3.11 brings."""
    linked = environment / "linked"
    linked.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(("unsee", "__editable__", "pip")):
            (linked / path.name).symlink_to(path)
    [site] = environment.glob("lib/python3*/site-packages")
    for path in site.glob("setuptools*"):
        shutil.rmtree(path)
    (site / "linked.pth").write_text(f"{linked}\n")


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / "compose.yaml").read_text()))


def test_the_training_beside_the_server_has_its_address_and_its_password() -> None:
    found = compose()
    [included] = found["include"]
    server = yaml.safe_load((CLUSTER / included["path"]).read_text())["services"]["mlflow"]
    training = found["services"]["unsee"]
    asked = re.findall(r"\$\{(\w+)", json.dumps(training["environment"]))
    assert set(asked) <= set(re.findall(r"\$\{(\w+)", json.dumps(server["environment"])))
    address = training["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert address in server["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert f"--port={address.partition(':')[2]}" in server["command"]
    assert (CLUSTER / training["build"]["context"] / training["build"]["dockerfile"]).is_file()
    named = {volume.partition(":")[0] for volume in training["volumes"]} - {".."}
    assert named == set(found["volumes"])
    assert f"cache:{ENV['HF_HOME']}" in training["volumes"]
    [work] = of("WORKDIR")
    assert f"..:{work}" in training["volumes"]


@pytest.fixture(scope="module")
def linters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which brings the linters")
    folder = tmp_path_factory.mktemp("linters")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *LINTERS]
    done = subprocess.run(install, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode != 0:
        pytest.skip(f"the linters could not be installed: npm install {' '.join(LINTERS)}")
    return folder / "node_modules" / ".bin"


def lint(linters: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(linters / command[0]), *command[1:]],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_the_linter_of_containerfiles_finds_nothing(linters: Path, tmp_path: Path) -> None:
    done = lint(linters, "dockerfile-utils", "lint", str(CONTAINERFILE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"(error|warning)", done.stdout, re.IGNORECASE), done.stdout
    wrong = tmp_path / "Containerfile"
    wrong.write_text(CONTAINERFILE.read_text().replace("WORKDIR /work", "WORKDIRS /work"))
    found = lint(linters, "dockerfile-utils", "lint", str(wrong))
    assert "WORKDIRS" in found.stdout + found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compose.yaml", "mlflow/compose.yaml"])
def test_compose_files_are_of_the_schema(linters: Path, tmp_path: Path, name: str) -> None:
    done = lint(linters, "dclint", "--formatter", "json", str(CLUSTER / name))
    assert not errors(done.stdout), done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((CLUSTER / name).read_text().replace("depends_on:", "depend_on:"))
    assert errors(lint(linters, "dclint", "--formatter", "json", str(wrong)).stdout)


def errors(printed: str) -> list[str]:
    """What breaks the schema of Compose; the linter also has opinions on the order of keys."""
    return [
        each["message"]
        for file in json.loads(printed)
        for each in file["messages"]
        if each["rule"] == "invalid-schema"
    ]
