"""What `unsee evaluate | compare | export` take as MODEL.

runs/mine                          a run: its best/, else its final/
runs/mine/checkpoints/step-...     a checkpoint: the online encoder as it stood there
runs/mine/final, any folder        written by `unsee export` or sentence-transformers, or a plain transformers
                                   folder (mean pooling)
owner/name                         a model of the Hub, a baseline
tfidf                              the floor without training: counts the words of the task's own texts
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from unsee_dist.errors import UserError
from unsee_dist.metrics.tfidf import WORDS, TfIdf
from unsee_dist.tracking.metrics_file import read

ELSEWHERE = Path("evaluations")  # scores of models that are no run's
TFIDF = "tfidf"
AT_ONCE = 64  # texts


@dataclass(frozen=True)
class Model:
    """An encoder and what tells it from every other: `revision` holds a digest of weights and pooling.

    home: the folder of its scores, one JSON a task. run: the run's folder, or None.
    """

    name: str
    revision: str
    home: Path
    run: Path | None
    embed: Any  # (n texts) -> (n, D); TfIdf also learns `prepare(texts)`
    folder: Path | None = None  # of the export; None for a checkpoint, the Hub and TF-IDF


def open_model(given: str) -> Model:
    """MODEL as typed -> a Model that is loaded. Raises ValueError when it is none, or half written."""
    path = Path(given)
    if given == TFIDF and not path.exists():
        return Model("floor/tfidf", f"words-{WORDS}", ELSEWHERE / TFIDF, None, TfIdf())
    if not path.is_dir():
        return _from_hub(given, path)
    if (path / "config.yaml").is_file() and not (path / "modules.json").exists():
        return _of_run(path)
    if (path / "manifest.json").is_file():
        return _of_checkpoint(path)
    _refuse_half_written(path)
    run = path.parent if (path.parent / "config.yaml").is_file() else None
    return _loaded(str(path), path, run, path.name)


def run_folder(path: Path) -> Path:
    """The export a run is judged by: best/ where there is one, else final/. ValueError when it has neither."""
    for name in ("best", "final"):
        if (path / name).is_dir():
            return path / name
    raise UserError(
        f"{path} is a run without best/ and final/: it has not been evaluated yet. Give one of its checkpoints."
    )


def _of_run(path: Path) -> Model:
    folder = run_folder(path)
    _refuse_half_written(folder)
    return _loaded(str(folder), folder, path, folder.name)


def _of_checkpoint(path: Path) -> Model:
    from unsee_dist.publish.from_checkpoint import write_online

    run = path.resolve().parent.parent
    with tempfile.TemporaryDirectory() as made:
        write_online(path, run, Path(made) / "encoder")
        return _loaded(str(Path(made) / "encoder"), None, run, path.name)


def _from_hub(given: str, path: Path) -> Model:
    if path.exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", given) or given.startswith("."):
        raise UserError(
            f"{given} is not a model: no such folder. Give a run, a checkpoint, an exported folder or owner/name."
        )
    return _loaded(given, None, None, given)


def _loaded(source: str, folder: Path | None, run: Path | None, which: str) -> Model:
    encoder = _sentence_transformer(source)
    digest = _digest(encoder)
    at = f"{which}-{digest[:8]}".replace("/", "__")
    if run is None:
        name = which if "/" in which else f"local/{which}"
        return Model(name, digest, ELSEWHERE / at, None, _embedder(encoder), folder)
    step = _step(run, which)
    revision = f"{which}-{step}-{digest}" if step else f"{which}-{digest}"
    return Model(
        f"{run.resolve().name}/{which}", revision, run / "evaluation" / at, run, _embedder(encoder), folder
    )


def _sentence_transformer(source: str) -> Any:
    from huggingface_hub.utils import logging as hub_logging
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.set_verbosity_error()  # "pooler: missing" is what having none means
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()  # "using cached commit hash" is what being offline means
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 6.x: 5.1's names of the modules are old
        try:
            return SentenceTransformer(source).eval()
        except Exception as error:  # a folder or a name can be wrong in a dozen unrelated types
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if Path(source).is_dir():
                raise UserError(
                    f"{source} cannot be loaded as a sentence encoder ({reason}). Export it again."
                ) from error
            raise UserError(
                f"{source} is neither a folder here nor a model that could be loaded from the Hub ({reason}). Where "
                f"there is a network, with the same HF_HOME: unsee evaluate {source} --prefetch."
            ) from error


def _refuse_half_written(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    wanted = ["config.json"]
    for file in [*path.glob("*.json"), *path.glob("1_Pooling/*.json")]:
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"{path} is a half-written export: {file.name} is cut off. Export it again."
            ) from error
    if (path / "modules.json").is_file():
        modules = json.loads((path / "modules.json").read_text(encoding="utf-8"))
        inner = [path / module["path"] for module in modules]
        gone = [str(folder) for folder in inner if not folder.is_dir()]
    else:
        traces = ("1_Pooling", "sentence_bert_config.json", "config_sentence_transformers.json")
        gone = ["modules.json"] if any((path / name).exists() for name in traces) else []
    gone += [name for name in wanted if not (path / name).is_file()]
    if not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        gone.append("model.safetensors")
    if len(gone) > 1 and not (path / "config.json").exists():
        raise UserError(
            f"{path} is not a model: no config.yaml of a run, no modules.json, no config.json. Give a run, a "
            "checkpoint, an exported folder or owner/name."
        )
    if gone:
        raise UserError(f"{path} is a half-written export: {gone[0]} is missing. Export it again.")
    for file in path.glob("*.safetensors"):
        try:
            safe_open(file, framework="np")
        except SafetensorError as error:
            raise UserError(f"{path} is a half-written export: {file.name} is cut off ({error}).") from error


def _embedder(encoder: Any) -> Any:
    def embed(texts: list[str]) -> np.ndarray:
        return encoder.encode(texts, batch_size=AT_ONCE, show_progress_bar=False, convert_to_numpy=True)

    return embed


def _digest(encoder: Any) -> str:
    """Of every weight and of what else decides the vectors: pooling, length."""
    digest = xxhash.xxh3_128(f"{encoder.max_seq_length} {encoder}".encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        if ".pooler." in name:  # not used; where a folder has none, loaders make one up, another each time
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _step(run: Path, which: str) -> str:
    """The step a run's export stands at, "" when its records do not say."""
    if which.startswith("step-"):
        return ""  # the name says it
    best, last = 0, 0
    try:
        lines = read(run / "metrics.jsonl")
    except UserError:  # a damaged record: the digest still tells the model
        return ""
    for line in lines:
        last = line["step"]
        best = last if line.get("dev/best") else best
    step = best if which == "best" else last
    return f"step{step}" if step else ""
