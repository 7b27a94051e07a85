"""Whether the folder of an encoder is whole: a file that is missing or cut off is named before a loader meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unsee_dist.errors import UserError
from unsee_dist.files.trees import parse_json
from unsee_dist.publish.sentence_transformers import MODULES


def refuse_half_written(path: Path) -> None:
    """UserError: a file of an encoder's folder is missing or cut off, or it has python code of its own."""
    for file in [*path.glob("*.json"), *path.glob("1_Pooling/*.json")]:
        try:
            parse_json(file.read_bytes())
        except ValueError as error:
            raise UserError(
                f"{path} is a half-written export: {file.relative_to(path)} is cut off or damaged. Export it again."
            ) from error
    missing = _missing(path)
    if len(missing) > 1 and not (path / "config.json").exists():
        raise UserError(
            f"{path} is not a model: no config.yaml of a run, no modules.json, no config.json. Give a run, a "
            "checkpoint, an exported folder or owner/name."
        )
    if missing:
        raise UserError(f"{path} is a half-written export: {missing[0]} is missing. Export it again.")
    _check_weights(path)


def _missing(path: Path) -> list[str]:
    """The files and folders that an encoder's folder lacks."""
    if (path / MODULES).is_file():
        modules: Any = parse_json((path / MODULES).read_bytes())
        try:
            folders = [path / module["path"] for module in modules]
            foreign = [str(module["type"]) for module in modules if not _is_known(str(module["type"]))]
        except (TypeError, KeyError) as error:
            raise UserError(
                f"{path} is a damaged export: modules.json names no folders. Export it again."
            ) from error
        if foreign:
            raise UserError(
                f"{path} comes with python code of its own ({foreign[0]}), which is never run. Export it again, with the "
                "modules that sentence-transformers itself has."
            )
        missing = [str(folder) for folder in folders if not folder.is_dir()]
    else:
        traces = ("1_Pooling", "sentence_bert_config.json", "config_sentence_transformers.json")
        missing = [MODULES] if any((path / name).exists() for name in traces) else []
    if not (path / "config.json").is_file():
        missing.append("config.json")
    if not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        missing.append("model.safetensors")
    return missing


def _is_known(module: str) -> bool:
    return module.startswith("sentence_transformers.")


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for file in path.glob("*.safetensors"):
        try:
            safe_open(file, framework="np")
        except SafetensorError as error:
            raise UserError(
                f"{path} is a half-written export: {file.name} is cut off ({error}). Export it again."
            ) from error
