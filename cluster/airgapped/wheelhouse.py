#!/usr/bin/env python
"""A folder with all that installs this package on a machine without a network, but torch.

    make wheelhouse PYTHON=3.12 PLATFORM=x86_64 HAVE=have.txt     ->  wheelhouse/*.whl  install.sh

Run in the project, with its .venv made: which packages are needed is read from those installed there, and their versions
are those of constraints.txt. torch is never taken (2 GB, and a cluster brings its own build), nor what HAVE names: a text
file with a package a line or between blanks, `name` or `name==version`, as `pip freeze` writes it on that machine. A small
package that HAVE names without a version is taken all the same: it may be too old. install.sh leaves it out where it is not.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = "unsee-dist"
NEVER = {"torch"}  # and what only torch needs: CUDA's libraries, triton
# Wheels for an older glibc run on a newer one: all tags up to that of Ubuntu 22.04.
GLIBC = (35, 34, 31, 28, 27, 26, 24, 17, 12, 5)
LIMIT_MB = 50
SMALL_MB = 1.5  # installed


@dataclass(frozen=True)
class Machine:
    """The machine to install on. have: canonical name -> version, "" when it is not said."""

    python: str
    platform: str
    have: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What the markers of requirements are evaluated with."""
        here = {key: str(value) for key, value in default_environment().items()}
        return here | {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.platform,
            "sys_platform": "linux",
        }

    @property
    def pip_tags(self) -> list[str]:
        tags = [f"manylinux_2_{minor}_{self.platform}" for minor in GLIBC]
        tags += [
            f"manylinux2014_{self.platform}",
            f"manylinux2010_{self.platform}",
            f"manylinux1_{self.platform}",
        ]
        return [
            *("--python-version", self.python, "--implementation", "cp", "--only-binary=:all:"),
            *(f"--platform={tag}" for tag in tags),
        ]


def main() -> int:
    given = arguments()
    machine = Machine(given.python, given.platform, read_have(given.have))
    needed = closure(machine, given.extras)
    folder = given.out
    with tempfile.TemporaryDirectory(
        prefix="wheelhouse-", dir=folder.parent if folder.parent.is_dir() else None
    ) as work:
        new = Path(work) / "wheels"
        new.mkdir()
        build(new, str(PROJECT))
        versions = pinned()
        for number, name in enumerate(sorted(needed), start=1):
            if name not in versions:
                sys.exit(f"constraints.txt has no {name}. Write `pip freeze --exclude-editable` into it.")
            print(f"{number}/{len(needed)} {name}=={versions[name]}", flush=True)
            fetch(new, f"{name}=={versions[name]}", machine)
        shutil.copy(Path(__file__).with_name("install.sh"), new / "install.sh")
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(new, folder)
    report(folder, machine)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="3.12", help="X.Y of the machine's Python")
    parser.add_argument("--platform", default="x86_64", choices=("x86_64", "aarch64"))
    parser.add_argument("--have", type=Path, help="a file that names the packages the machine has")
    parser.add_argument("--extras", default="", help="mlflow,sweep,...: extras of pyproject.toml")
    parser.add_argument("--out", type=Path, default=Path("wheelhouse"))
    given = parser.parse_args()
    if not re.fullmatch(r"3\.1[123]", given.python):
        parser.error(f"--python = {given.python}: write 3.11, 3.12 or 3.13")
    if given.have is not None and not given.have.is_file():
        parser.error(
            f"--have = {given.have}: no such file. Write there what `pip freeze` prints on that machine"
        )
    if given.out.exists() and any(
        path.suffix != ".whl" and path.name != "install.sh" for path in given.out.iterdir()
    ):
        parser.error(f"--out = {given.out} holds other things than wheels. Write another folder")
    return given


def read_have(path: Path | None) -> dict[str, str]:
    """Names, with versions where they are said; comments and lines that are no packages are left out."""
    if path is None:
        return {}
    lines = (line.split("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
    words = (word for line in lines for word in line.split() if re.match(r"[A-Za-z0-9]", word))
    parts = (re.match(r"([A-Za-z0-9._-]+)(?:==([^;\s+]+))?", word) for word in words)
    return {canonicalize_name(part[1]): part[2] or "" for part in parts if part}


def closure(machine: Machine, extras: str) -> set[str]:
    """Names of all packages the machine lacks, found by walking the requirements of those installed here."""
    needed: set[str] = set()
    waiting = [(PACKAGE, frozenset(extra.strip() for extra in extras.split(",") if extra.strip()))]
    seen = set(waiting)
    while waiting:
        name, chosen = waiting.pop()
        for requirement in requirements(name, chosen, machine):
            key = canonicalize_name(requirement.name)
            if key in NEVER or has(machine, key, requirement):
                continue
            needed.add(key)
            pair = (key, frozenset(requirement.extras))
            if pair not in seen:
                seen.add(pair)
                waiting.append(pair)
    return needed - {canonicalize_name(PACKAGE)}


def requirements(name: str, extras: frozenset[str], machine: Machine) -> Iterator[Requirement]:
    try:
        listed = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        sys.exit(
            f"{name} is not installed here, so what it needs is unknown. Run `make lint` once: it makes .venv."
        )
    for line in listed:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate(machine.environment | {"extra": extra}) for extra in extras or {""}
        ):
            yield requirement


def has(machine: Machine, name: str, requirement: Requirement) -> bool:
    if name not in machine.have:
        return False
    version = machine.have[name]
    if not version and installed_mb(name) <= SMALL_MB:
        return False
    if version and not requirement.specifier.contains(version, prereleases=True):
        print(f"the machine's {name} {version} is not {requirement.specifier}: the tested one is taken along")
        return False
    return True


def installed_mb(name: str) -> float:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return 0.0
    return sum(file.size or 0 for file in files) / 1e6


def pinned() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def pip(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *command],
        env=os.environ | {"DS_BUILD_OPS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"pip {' '.join(command[:1])} failed:\n{done.stdout}{done.stderr}")


def build(folder: Path, what: str) -> None:
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), what)


def fetch(folder: Path, pin: str, machine: Machine) -> None:
    """The wheel from the index; deepspeed has none there, and without its compiled parts it is one for every machine."""
    if pin.startswith("deepspeed=="):
        build(folder, pin)
    else:
        pip("download", "-q", "--no-deps", "-d", str(folder), *machine.pip_tags, pin)


def report(folder: Path, machine: Machine) -> None:
    sizes = sorted(((path.stat().st_size / 1e6, path.name) for path in folder.glob("*.whl")), reverse=True)
    total = sum(size for size, _ in sizes)
    print(f"{folder}: {len(sizes)} wheels for Python {machine.python} on {machine.platform}, {total:.1f} MB")
    if total > LIMIT_MB:
        largest = ", ".join(f"{name.split('-')[0]} {size:.0f}" for size, name in sizes[:6])
        print(
            f"That is much to carry (largest, in MB: {largest}). If the machine has some of them, name them in HAVE."
        )
    print(f"There: {folder.name}/install.sh   (into the Python that is active, which has torch)")


if __name__ == "__main__":
    sys.exit(main())
