"""The wheel, installed outside any clone, in an empty folder: what a user of the package has."""

from __future__ import annotations

import os
import site
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.tiny import Tiny
from integration.wheel import PIP, build_wheel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of an environment that has the wheel and, for the rest, the packages of this one; but not the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(folder)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    paths = sysconfig.get_paths("venv", {"base": str(folder / "venv"), "platbase": str(folder / "venv")})
    packages = Path(paths["purelib"])
    launch.succeed([*PIP, "install", "-q", "--no-deps", "--no-index", "--target", str(packages), str(wheel)])
    (packages / "others.pth").write_text(
        "\n".join(site.getsitepackages()) + "\n"
    )  # nested .pth files are not read
    (folder / "venv" / "bin" / "unsee").write_text(
        f"#!{folder}/venv/bin/python\nfrom unsee_dist.cli import main\nmain()\n"
    )
    (folder / "venv" / "bin" / "unsee").chmod(0o755)
    return folder / "venv" / "bin"


def run(bin_: Path, folder: Path, *command: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [str(bin_ / command[0]), *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_it_is_the_wheel_and_not_the_clone(installed: Path, tmp_path: Path) -> None:
    found = run(installed, tmp_path, "python", "-c", "import unsee_dist; print(unsee_dist.__file__)").stdout
    assert found.startswith(str(installed.parent)), found
    version = run(installed, tmp_path, "unsee", "--version").stdout
    assert version.startswith("unsee_dist ")
    assert Path(found.strip()).with_name("py.typed").exists()


def test_presets_and_a_project_of_ones_own(installed: Path, tmp_path: Path) -> None:
    listed = run(installed, tmp_path, "unsee", "config", "ls")
    assert listed.returncode == 0, listed.stderr
    assert all(name in listed.stdout for name in ("base", "unsee-vicreg", "quickstart"))
    assert run(installed, tmp_path, "unsee", "config", "check", "unsee-vicreg").returncode == 0
    made = run(installed, tmp_path, "unsee", "init", "mine")
    assert made.returncode == 0, made.stderr
    mine = tmp_path / "mine"
    there = {str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file()}
    assert {"README.md", "configs/base.yaml", "configs/sweeps/tiny.yaml", "slurm/train.sh"} <= there
    assert {name for name in there if name.startswith("cluster/")}
    assert os.access(mine / "slurm" / "train.sh", os.X_OK)
    (mine / "configs" / "base.yaml").write_text("# mine\n")
    again = run(installed, tmp_path, "unsee", "init", "mine")
    assert again.returncode == 2
    assert "configs/base.yaml" in again.stderr
    assert (mine / "configs" / "base.yaml").read_text() == "# mine\n"


@pytest.mark.parametrize("launcher", ["unsee", "torchrun", "deepspeed"])
def test_a_run_by_every_launcher_from_an_empty_folder(
    installed: Path, tmp_path: Path, tiny: Tiny, launcher: str
) -> None:
    arguments = [str(tiny.config), f"run.dir={tmp_path / 'run'}", "track.mlflow=false"]
    commands = {
        "unsee": ["unsee", "train", *arguments],
        "torchrun": [
            "python",
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "unsee_dist.train",
            "--config",
            *arguments,
        ],
        "deepspeed": [
            "python",
            "-m",
            "deepspeed.launcher.runner",
            "--num_accelerators",
            "2",
            "--master_port",
            str(launch.free_port()),
            "--module",
            "unsee_dist.train",
            "--config",
            *arguments,
        ],
    }
    done = run(installed, tmp_path / "empty", *commands[launcher])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
