"""Plan: what a preparation's output depends on, and whose folder it is written into."""

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
from unsee_dist.data.prepare.languages import written_in
from unsee_dist.data.prepare.settings import PrepareSettings
from unsee_dist.errors import UserError
from unsee_dist.files import atomic

PREPARING = "preparing"  # the folder of work
PLAN = "plan.json"
WORK_FORMAT = 1


def plan_of(names: list[str], out: Path, settings: PrepareSettings) -> dict[str, Any]:
    """What the output depends on. Standard input is put into the folder of work first: it can be read once."""
    if sources.STDIN in names:
        keep = out / PREPARING if not (out / INDEX).exists() else None
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        found = sources.spool(sys.stdin.buffer, keep)
    described = [found if name == sources.STDIN else sources.describe(name) for name in names]
    plan: dict[str, Any] = {"settings": asdict(settings), "inputs": described}
    if settings.split == "sentence":
        plan["splitter"] = f"sentencex {metadata.version('sentencex')}"
    if settings.keep_language:
        written_in(settings.keep_language)  # a language that nobody can tell is said before the work
        plan["identifier"] = f"py3langid {metadata.version('py3langid')}"
    if settings.zst:
        plan["packer"] = f"zstandard {metadata.version('zstandard')}"
    if sources.STDIN in names:
        names[names.index(sources.STDIN)] = str(out / PREPARING / sources.SPOOLED)
    return plan


def check_ours(out: Path) -> None:
    """ValueError when the folder holds what no preparation wrote."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file. Give a folder.")
    ours = (out / INDEX).exists() or (out / PREPARING).is_dir()
    if out.exists() and not ours and any(out.iterdir()):
        raise UserError(f"{out} is not empty and no corpus of `unsee prepare`. Choose another --out.")


def claim(out: Path, plan: dict[str, Any]) -> Path:
    """The folder of work. What is in it is kept when the same plan made it, cleared when only the inputs' bytes
    changed (somebody mended them), and nobody's to clear when another preparation was interrupted."""
    work, wanted = out / PREPARING, as_json(plan | {"work": WORK_FORMAT})
    work.mkdir(parents=True, exist_ok=True)
    there = json.loads((work / PLAN).read_bytes()) if (work / PLAN).exists() else None
    if there and (differ := _differ(there, plan, [source["name"] for source in plan["inputs"]])):
        raise UserError(
            f"{out} holds an interrupted preparation of another corpus: {'; '.join(differ)}. "
            f"Run that again to continue it, choose another --out, or delete {out}."
        )
    if there is None or (work / PLAN).read_bytes() != wanted:
        for file in [*out.glob("shard-*.tar"), *work.iterdir()]:
            if file.name != sources.SPOOLED:
                file.unlink()
        atomic.write_file(work / PLAN, wanted)
    for file in work.glob("*.partial"):
        file.unlink()
    return work


def abandon(out: Path) -> None:
    """Remove what we put into the folder, and the folder when it is then empty."""
    for shard in out.glob("shard-*.tar"):
        shard.unlink()
    shutil.rmtree(out / PREPARING, ignore_errors=True)
    if out.exists() and not any(out.iterdir()):
        out.rmdir()


def finished(out: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """The index of a finished corpus; ValueError if it is not the one asked for."""
    index = read_index(Store(out))
    there = index["preparation"]
    if differ := _differ(there, plan):
        raise UserError(
            f"{out} already holds another corpus: {'; '.join(differ)}. Choose another --out, or delete {out}."
        )
    shutil.rmtree(out / PREPARING, ignore_errors=True)
    return index


def _differ(there: dict[str, Any], here: dict[str, Any], names: list[str] | None = None) -> list[str]:
    """What sets two plans apart. names: compare the inputs by their names only."""
    old, new = asdict(PrepareSettings()) | there["settings"], here["settings"]
    differ = [f"{k} = {old[k]} there, {new[k]} here" for k in new if old[k] != new[k]]
    same = names == [i["name"] for i in there["inputs"]] if names else there["inputs"] == here["inputs"]
    if not same:
        differ.append(f"made of {_names(there['inputs'])} there, of {_names(here['inputs'])} here")
    return differ


def _names(inputs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{i['name']} ({i['bytes']:,} bytes, {i['xxh3'][:8]})" for i in inputs)


def as_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
