"""PreparationPlan: everything the output of a preparation depends on; and the checks of its output folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.data.corpus.block_file import BLOCKS
from unsee_dist.data.corpus.index import INDEX, PREPARING, CorpusIndex, read_index
from unsee_dist.data.corpus.store import Store
from unsee_dist.data.prepare import sources, spool
from unsee_dist.data.prepare.languages import is_written_in
from unsee_dist.data.prepare.opening import InputDescription
from unsee_dist.errors import UserError
from unsee_dist.files import atomic
from unsee_dist.files.owner import OWNER, owned
from unsee_dist.files.remote import check_local

PLAN = "plan.json"
WORK_FORMAT = 3  # of the runs and of what else is in the work folder
_WRITTEN = re.compile(r"(plan|sorted|shard-\d+\.tar)\.json|run-[\d-]+|.*\.partial")
NAMED = 3  # inputs in a sentence, of each side


@dataclass(frozen=True)
class PreparationPlan:
    """The settings and inputs of a preparation, and the versions of the packages that change its bytes."""

    settings: PrepareSettings
    inputs: list[InputDescription]
    splitter: str | None = None
    identifier: str | None = None
    packer: str | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON, without the packages that are not used."""
        versions = {"splitter": self.splitter, "identifier": self.identifier, "packer": self.packer}
        used = {package: version for package, version in versions.items() if version is not None}
        return {
            "settings": self.settings.model_dump(),
            "inputs": [asdict(each) for each in self.inputs],
            **used,
        }


PLAN_ADAPTER = TypeAdapter(PreparationPlan)


def make_plan(names: list[str], out: Path, settings: PrepareSettings) -> PreparationPlan:
    """The plan of a preparation. What can be read only once is copied into the work folder, and then named by its copy."""
    if settings.keep_language:
        is_written_in(settings.keep_language)  # an unknown language is reported before the work starts
    spool.check_once(names)
    once = [spool.is_spooled(name) for name in names]
    described = [
        None if spooled else sources.describe(name) for name, spooled in zip(names, once, strict=True)
    ]
    work = out / PREPARING if any(once) and not (out / INDEX).exists() else None
    if work:
        work.mkdir(parents=True, exist_ok=True)
    inputs = [each or spool.spool(names[i], i, work) for i, each in enumerate(described)]
    names[:] = [
        str(out / PREPARING / spool.copy_name(name, i)) if once[i] else name for i, name in enumerate(names)
    ]
    return PreparationPlan(
        settings,
        inputs,
        splitter=_version("sentencex") if settings.split == "sentence" else None,
        identifier=_version("py3langid") if settings.keep_language else None,
        packer=_version("zstandard") if settings.zst else None,
    )


def _version(package: str) -> str:
    return f"{package} {metadata.version(package)}"


@contextmanager
def owned_output(out: Path) -> Iterator[None]:
    """This process alone prepares the folder while the block runs. UserError: it has foreign files, or another owner."""
    check_output(out)
    finished = (out / INDEX).exists() and not (out / PREPARING).exists()  # it is only read
    remedy = "Wait until it has ended, stop it, or choose another --out."
    with nullcontext() if finished else owned(out / PREPARING / OWNER, f"--out {out}", remedy):
        yield


def check_output(out: Path) -> None:
    """UserError when the folder has files that no preparation wrote."""
    check_local(out, "--out")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file. Give a folder.")
    prepared = (out / INDEX).exists() or (out / PREPARING / PLAN).exists()
    if out.exists() and not prepared and not all(map(_is_of_a_beginning, _entries(out))):
        raise UserError(
            f"{out} is not empty, and it is not a corpus of `unsee prepare`. Choose another --out."
        )


def _entries(out: Path) -> Iterator[Path]:
    """What is in the folder; for our folder of unfinished work, what is in that."""
    for path in out.iterdir():
        if path.name == PREPARING and path.is_dir():
            yield from path.iterdir()
        else:
            yield path


def _is_of_a_beginning(path: Path) -> bool:
    """Whether a preparation writes this file before its plan."""
    ours = spool.is_copy(path) or OWNER in path.name or path.name.endswith(".partial")
    return ours and path.parent.name == PREPARING


def open_work_folder(out: Path, plan: PreparationPlan) -> Path:
    """The work folder. Its files are kept when they belong to the same plan, and removed when only the content of the
    inputs has changed (it was corrected). UserError when they belong to another, interrupted preparation."""
    work, plan_json = out / PREPARING, as_json(plan.as_dict() | {"work": WORK_FORMAT})
    work.mkdir(parents=True, exist_ok=True)
    stored = (work / PLAN).read_bytes() if (work / PLAN).exists() else None
    if stored is not None and (
        differences := _differences(_read_plan(work / PLAN, stored), plan, by_name=True)
    ):
        raise UserError(
            f"{out} has an interrupted preparation of another corpus: {'; '.join(differences)}. "
            f"Run that command again to continue it, choose another --out, or delete {out}."
        )
    if stored != plan_json:
        for file in [*_made(out), *filter(_is_ours, work.iterdir())]:
            if not spool.is_copy(file) and OWNER not in file.name:
                file.unlink()
        atomic.write_file(work / PLAN, plan_json)
    for file in work.glob("*.partial"):
        file.unlink()
    return work


def _made(out: Path) -> list[Path]:
    """What a preparation writes beside the work folder before the index."""
    return [*out.glob("shard-*.tar"), *out.glob(BLOCKS)]


def remove_output(out: Path) -> None:
    """Remove the files of a preparation from the folder, and the folder when it is then empty."""
    for file in _made(out):
        file.unlink()
    remove_work(out)
    if out.exists() and not any(out.iterdir()):
        out.rmdir()


def read_finished(out: Path, plan: PreparationPlan) -> CorpusIndex:
    """The index of a finished corpus. UserError when its plan is another one."""
    index = read_index(Store(out))
    stored = _read_plan(out / INDEX, json.dumps(index.preparation).encode())
    if differences := _differences(stored, plan):
        raise UserError(
            f"{out} already has another corpus: {'; '.join(differences)}. Choose another --out, or delete {out}."
        )
    remove_work(out)
    return index


def remove_work(out: Path) -> None:
    """Remove what preparations write in their work folder, and the folder itself unless a file of the user's is in it."""
    work = out / PREPARING
    if work.is_dir():
        for path in filter(_is_ours, work.iterdir()):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            work.rmdir()


def _is_ours(path: Path) -> bool:
    """Whether a preparation writes a file of this name into its work folder."""
    return _WRITTEN.fullmatch(path.name) is not None or spool.is_copy(path) or OWNER in path.name


def _read_plan(path: Path, stored: bytes) -> PreparationPlan:
    try:
        return PLAN_ADAPTER.validate_json(stored)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} has a plan of another version of unsee_dist ({place}: {first['msg']}). Choose another --out."
        ) from error


def _differences(stored: PreparationPlan, plan: PreparationPlan, by_name: bool = False) -> list[str]:
    """How two plans differ. by_name: compare the inputs by their names only."""
    old, new = stored.settings.model_dump(), plan.settings.model_dump()
    differences = [f"{key} = {old[key]} there, {new[key]} here" for key in new if old[key] != new[key]]
    if by_name:
        same = [each.name for each in stored.inputs] == [each.name for each in plan.inputs]
    else:
        same = stored.inputs == plan.inputs
    if not same:
        there, here = (
            _names_of_others(stored.inputs, plan.inputs),
            _names_of_others(plan.inputs, stored.inputs),
        )
        differences.append(f"made of {there} there, of {here} here")
    return differences


def _names_of_others(inputs: list[InputDescription], others: list[InputDescription]) -> str:
    """The inputs that are not among the others; all of them where only the order differs."""
    known = set(others)
    return _names([each for each in inputs if each not in known] or inputs)


def _names(inputs: list[InputDescription]) -> str:
    more = f" and {len(inputs) - NAMED:,} more" if len(inputs) > NAMED else ""
    return ", ".join(f"{each.name} ({each.bytes:,} bytes, {each.xxh3[:8]})" for each in inputs[:NAMED]) + more


def as_json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
