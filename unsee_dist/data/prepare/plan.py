"""Plan: everything the output of a preparation depends on; and the checks of its output folder."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from unsee_dist.data.corpus.index import INDEX, read_index
from unsee_dist.data.corpus.store import Store
from unsee_dist.data.prepare import sources
from unsee_dist.data.prepare.languages import is_written_in
from unsee_dist.data.prepare.settings import PrepareSettings
from unsee_dist.errors import UserError
from unsee_dist.files import atomic

PREPARING = "preparing"  # the folder for unfinished work, inside the output folder
PLAN = "plan.json"
WORK_FORMAT = 1


def make_plan(names: list[str], out: Path, settings: PrepareSettings) -> dict[str, Any]:
    """The plan of a preparation. Standard input is copied into the work folder first: it can be read only once."""
    if sources.STDIN in names:
        work = out / PREPARING if not (out / INDEX).exists() else None
        if work:
            work.mkdir(parents=True, exist_ok=True)
        standard_input = sources.spool(sys.stdin.buffer, work)
    described = [standard_input if name == sources.STDIN else sources.describe(name) for name in names]
    plan: dict[str, Any] = {"settings": asdict(settings), "inputs": described}
    if settings.split == "sentence":
        plan["splitter"] = f"sentencex {metadata.version('sentencex')}"
    if settings.keep_language:
        is_written_in(settings.keep_language)  # an unknown language is reported before the work starts
        plan["identifier"] = f"py3langid {metadata.version('py3langid')}"
    if settings.zst:
        plan["packer"] = f"zstandard {metadata.version('zstandard')}"
    if sources.STDIN in names:
        names[names.index(sources.STDIN)] = str(out / PREPARING / sources.SPOOLED)
    return plan


def check_output(out: Path) -> None:
    """ValueError when the folder has files that no preparation wrote."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file. Give a folder.")
    prepared = (out / INDEX).exists() or (out / PREPARING).is_dir()
    if out.exists() and not prepared and any(out.iterdir()):
        raise UserError(
            f"{out} is not empty, and it is not a corpus of `unsee prepare`. Choose another --out."
        )


def open_work_folder(out: Path, plan: dict[str, Any]) -> Path:
    """The work folder. Its files are kept when they belong to the same plan, and removed when only the content of the
    inputs has changed (it was corrected). ValueError when they belong to another, interrupted preparation."""
    work, plan_json = out / PREPARING, as_json(plan | {"work": WORK_FORMAT})
    work.mkdir(parents=True, exist_ok=True)
    stored = json.loads((work / PLAN).read_bytes()) if (work / PLAN).exists() else None
    if stored and (differences := _differences(stored, plan, [source["name"] for source in plan["inputs"]])):
        raise UserError(
            f"{out} has an interrupted preparation of another corpus: {'; '.join(differences)}. "
            f"Run that command again to continue it, choose another --out, or delete {out}."
        )
    if stored is None or (work / PLAN).read_bytes() != plan_json:
        for file in [*out.glob("shard-*.tar"), *work.iterdir()]:
            if file.name != sources.SPOOLED:
                file.unlink()
        atomic.write_file(work / PLAN, plan_json)
    for file in work.glob("*.partial"):
        file.unlink()
    return work


def remove_output(out: Path) -> None:
    """Remove the files of a preparation from the folder, and the folder when it is then empty."""
    for shard in out.glob("shard-*.tar"):
        shard.unlink()
    shutil.rmtree(out / PREPARING, ignore_errors=True)
    if out.exists() and not any(out.iterdir()):
        out.rmdir()


def read_finished(out: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """The index of a finished corpus. ValueError when its plan is another one."""
    index = read_index(Store(out))
    if differences := _differences(index["preparation"], plan):
        raise UserError(
            f"{out} already has another corpus: {'; '.join(differences)}. Choose another --out, or delete {out}."
        )
    shutil.rmtree(out / PREPARING, ignore_errors=True)
    return index


def _differences(stored: dict[str, Any], plan: dict[str, Any], names: list[str] | None = None) -> list[str]:
    """How two plans differ. names: compare the inputs by their names only."""
    old, new = asdict(PrepareSettings()) | stored["settings"], plan["settings"]
    differences = [f"{key} = {old[key]} there, {new[key]} here" for key in new if old[key] != new[key]]
    same = (
        names == [source["name"] for source in stored["inputs"]]
        if names
        else stored["inputs"] == plan["inputs"]
    )
    if not same:
        differences.append(f"made of {_names(stored['inputs'])} there, of {_names(plan['inputs'])} here")
    return differences


def _names(inputs: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{source['name']} ({source['bytes']:,} bytes, {source['xxh3'][:8]})" for source in inputs
    )


def as_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
