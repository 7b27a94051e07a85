"""make wheelhouse: a folder that installs the package without a network into a Python that has torch, and trains there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from importlib import metadata
from pathlib import Path

import pytest
from integration import tiny as launch
from integration.tiny import REPOSITORY, Tiny
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow
SCRIPT = REPOSITORY / "cluster" / "airgapped" / "wheelhouse.py"
# A GPU machine as one finds it: torch and what comes with it, the usual numerical packages.
THERE = (
    "numpy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "aiohttp",
    "jinja2",
    "transformers",
    "psutil",
    "setuptools",
)


def with_requirements(*names: str) -> list[str]:
    """These packages and what they need of those installed here: what `pip freeze` would print there."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen or not list(metadata.distributions(name=name)):
            continue
        seen.add(name)
        requirements = map(Requirement, metadata.requires(name) or [])
        waiting += [
            each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return sorted(seen)


def index_answers() -> bool:
    """Does pip's index answer? Wheels of other packages come from there."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    url = os.environ.get("PIP_INDEX_URL") or done.stdout.strip() or "https://pypi.org/simple"
    try:
        urllib.request.urlopen(url.rstrip("/") + "/hjson/", timeout=20).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not index_answers():
        pytest.skip("the package index cannot be reached")
    folder = tmp_path_factory.mktemp("wheelhouse")
    (folder / "have.txt").write_text("# pip freeze\n" + " ".join(with_requirements(*THERE)) + " hjson\n")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, str(SCRIPT), "--python", version, "--have", str(folder / "have.txt")]
    made = launch.run([*command, "--out", str(folder / "out")], 600)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "out"


def machine(folder: Path, *names: str) -> Path:
    """bin/ of an environment that has these packages and nothing else, as if they had been installed there."""
    venv.create(folder, with_pip=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    for name in names:
        for file in metadata.files(name) or []:
            top = file.parts[0]
            source = Path(str(metadata.distribution(name).locate_file(top)))
            if top not in ("..", "__pycache__") and source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    return folder / "bin"


def test_it_holds_all_but_torch_and_what_the_machine_has_in_50_mb(wheelhouse: Path) -> None:
    wheels = {path.name.split("-")[0].lower() for path in wheelhouse.glob("*.whl")}
    assert {"unsee_dist", "deepspeed", "webdataset", "zstandard", "datasets"} <= wheels
    assert not wheels & {"torch", "numpy", "transformers", "triton"}
    assert sum(path.stat().st_size for path in wheelhouse.iterdir()) < 50e6


def test_it_installs_without_an_index_and_trains(wheelhouse: Path, tmp_path: Path, tiny: Tiny) -> None:
    bin_ = machine(tmp_path / "machine", *with_requirements("torch", *THERE))
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_INDEX_URL")}
    env |= {
        "PYTHON": str(bin_ / "python"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/none",
        "OMP_NUM_THREADS": "1",
    }
    installed = launch.run(["bash", str(wheelhouse / "install.sh")], 300, env=env)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert "installed: unsee_dist" in installed.stdout
    overrides = ["train.steps=3", "evaluate.every=3", f"run.dir={tmp_path / 'run'}"]
    env |= {"HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    trained = launch.run([str(bin_ / "unsee"), "train", str(tiny.config), *overrides], 300, env=env)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert len(launch.lines(tmp_path / "run" / "metrics.jsonl")) >= 3


def test_with_target_it_installs_what_this_python_lacks_and_no_more(wheelhouse: Path, tmp_path: Path) -> None:
    """The machine's list names hjson, which it has not: such a list was seen. What it has is not shadowed."""
    bin_ = machine(tmp_path / "machine", *with_requirements("torch", *THERE))
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"PYTHON": str(bin_ / "python"), "PIP_INDEX_URL": "http://127.0.0.1:9/none"}
    target = tmp_path / "site"
    done = launch.run(["bash", str(wheelhouse / "install.sh"), "--target", str(target)], 300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = {path.name for path in target.iterdir()}
    assert {"unsee_dist", "deepspeed", "hjson"} <= installed
    assert not installed & {"packaging", "tqdm", "jinja2", "numpy", "torch"}, installed
    command = [str(bin_ / "python"), "-m", "unsee_dist", "--version"]
    printed = launch.run(command, 60, env=env | {"PYTHONPATH": str(target)}, cwd=tmp_path)
    assert "unsee_dist 0.1.0" in printed.stdout, printed.stdout + printed.stderr


def test_a_python_without_torch_is_a_sentence(wheelhouse: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False)
    env = os.environ | {"PYTHON": str(tmp_path / "empty" / "bin" / "python")}
    done = launch.run(["bash", str(wheelhouse / "install.sh")], 60, env=env)
    assert done.returncode == 2
    assert "has no torch" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--python", "3.9"], "write 3.11, 3.12 or 3.13"),
        (["--have", "nothing.txt"], "--have = nothing.txt: no such file"),
        (["--out", "."], "--out = . holds other things than wheels"),
    ],
)
def test_a_wrong_setting_is_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert (tmp_path / "thesis.tex").exists()
