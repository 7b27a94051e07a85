"""`unsee quickstart`: text from this machine -> a trained sentence encoder, in minutes, on 2 CPU ranks.

    quickstart/corpus     sentences of the installed packages' docstrings, without the objects of dev.tsv
    quickstart/encoder    a WordPiece tokenizer of these sentences, a small BERT with random weights
    quickstart/run        an ordinary run of configs/quickstart.yaml: best/, final/, metrics.jsonl

The score: given the first sentence of a held-out docstring, find its rest among those of 1,000 docstrings.
Nothing is downloaded. A second call continues where the first was stopped.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from unsee_dist.config.shipped import shipped
from unsee_dist.data.prepare.stages import DEV
from unsee_dist.errors import UserError, file_error
from unsee_dist.metrics.names import CANDIDATES, MRR, RECALL_AT_1, STEP, dev
from unsee_dist.supervision.signals import OF_A_LAUNCHER
from unsee_dist.tracking import metrics_file
from unsee_dist.tracking.metrics_file import METRICS, Line

if TYPE_CHECKING:
    from unsee_dist.config.sections import Precision
    from unsee_dist.data.corpus.shards import Shards

HOME = Path("quickstart")
PRESET = shipped("configs") / "quickstart.yaml"
BIN = Path(sys.executable).parent
RANKS = 2
HELD_OUT = 1000  # pairs
SEED = 0


def main() -> None:
    """All stages, one line each, then the table. UserError: a stage fails. SystemExit: the training has failed."""
    console, started = Console(highlight=False, markup=False, emoji=False), time.monotonic()
    corpus, encoder, run = HOME / "corpus", HOME / "encoder", HOME / "run"

    def print_stage(sentence: str) -> None:
        console.print(f"[{time.monotonic() - started:4.0f} s] {sentence}", markup=False, soft_wrap=True)

    print_stage(f"1/4 corpus: reading the docstrings of the packages installed here into {corpus}")
    sentences = make_corpus(corpus)
    print_stage(
        f"2/4 encoder: a tokenizer of {sentences:,} sentences and a BERT with random weights into {encoder}"
    )
    parameters = make_encoder(encoder, corpus)
    ranks, gpus = ranks_here()
    kind = "GPU" if gpus else "CPU"
    print_stage(f"3/4 training: {parameters / 1e6:.1f}M parameters, {ranks} {kind} ranks, ZeRO-2, into {run}")
    command = training_command(corpus, encoder, run, ranks, free_port(), precision_here(gpus))
    start_training(command, gpus)
    scores, tfidf = evaluations(run / METRICS), baseline(corpus / DEV)
    print_stage(
        "4/4 scores: find the rest of a docstring by its first sentence (docstrings held out of tokenizer and training)"
    )
    console.print(table(scores, tfidf))
    console.print(next_steps(run), markup=False, soft_wrap=True)
    print_stage("done")


def make_corpus(corpus: Path) -> int:
    """Make the corpus and its held-out pairs, unless a complete one exists, made of any packages. Returns its
    sentences."""
    from unsee_dist.data.corpus.index import INDEX
    from unsee_dist.data.corpus.shards import Shards
    from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare

    if (corpus / INDEX).is_file():
        return Shards(corpus).sentences
    return prepare(["installed-docs"], corpus, PrepareSettings(seed=SEED, dev=HELD_OUT)).kept


def make_encoder(encoder: Path, corpus: Path) -> int:
    """Make the untrained encoder, unless it is there. Returns its parameters."""
    from unsee_dist.data.corpus.shards import Shards
    from unsee_dist.model.fresh import FreshSize, write_fresh

    if (weights := encoder / "model.safetensors").is_file():
        return weights.stat().st_size // 4  # fp32, and a small header
    return write_fresh(encoder, _all_sentences(Shards(corpus)), FreshSize(), SEED)


def _all_sentences(shards: Shards) -> Iterator[str]:
    return (sentence for block in range(len(shards.blocks)) for sentence in shards.read(block))


def ranks_here() -> tuple[int, int]:
    """(ranks, GPUs) to train with: as many ranks as GPUs up to two, else two CPU ranks."""
    import torch

    gpus = min(RANKS, torch.cuda.device_count())
    return gpus or RANKS, gpus


def precision_here(gpus: int) -> Precision:
    """bf16 where this machine multiplies it faster than fp32: a step then takes three quarters of the time on 2 CPU ranks."""
    import torch

    from unsee_dist.distributed.engine import cpu_computes_bf16

    fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpus else cpu_computes_bf16()
    return "bf16" if fast else "fp32"


def training_command(
    corpus: Path, encoder: Path, run: Path, ranks: int, port: int, precision: Precision
) -> list[str]:
    """An ordinary command line of the deepspeed launcher."""
    return [
        *(
            str(BIN / "deepspeed"),
            "--num_accelerators",
            str(ranks),
            "--master_port",
            str(port),
            "--log_level",
            "error",
        ),
        *("--module", "unsee_dist.train", "--config", str(PRESET)),
        *(f"run.dir={run}", f"model.encoder=./{encoder}", f"data.shards={corpus}"),
        f"evaluate.retrieval={corpus / DEV}",
        f"parallel.precision={precision}",
    ]


def training_environment(inherited: Mapping[str, str], cores: int, gpus: int) -> dict[str, str]:
    """Ranks that share the cores, with the programs of this environment, and without a network."""
    mine = {name: value for name, value in inherited.items() if name not in OF_A_LAUNCHER}
    mine["PATH"] = f"{BIN}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    mine |= {
        "OMP_NUM_THREADS": str(max(1, cores // RANKS)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return mine if gpus else mine | {"DS_ACCELERATOR": "cpu"}


def start_training(command: list[str], gpus: int) -> None:
    """Run or continue the training. SystemExit with its exit code when it fails: its own lines have said why."""
    environment = training_environment(os.environ, len(os.sched_getaffinity(0)), gpus)
    try:
        code = subprocess.run(command, env=environment).returncode
    except OSError as error:
        sentence = f"{command[0]} cannot be started ({error.strerror}). Install unsee_dist again."
        raise file_error(sentence, error) from error
    if code != 0:
        print(
            f"unsee: the training ended with exit code {code}; the reason is above. Again: {' '.join(command)}",
            file=sys.stderr,
        )
        raise SystemExit(code if code > 0 else 128 - code)  # killed by signal n: 128 + n, as shells say


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def evaluations(metrics: Path) -> list[Line]:
    """The evaluation lines of a run, the untrained encoder's first. UserError: they are not in the file."""
    lines = [
        line for line in metrics_file.evaluations(metrics) if math.isfinite(line.get(dev(MRR), math.nan))
    ]
    if len(lines) < 2 or lines[0][STEP] != 0:
        raise UserError(
            f"{metrics} lacks scores from before and after training. Delete {HOME} and run this again."
        )
    return lines


def baseline(questions: Path) -> Line:
    """TF-IDF on the same questions, under the names of a run's metrics."""
    from unsee_dist.evaluation.question_files import load_questions
    from unsee_dist.metrics.retrieval import tfidf_scores

    return {dev(name): value for name, value in tfidf_scores(load_questions(questions)).items()}


def table(scores: list[Line], tfidf: Line) -> Table:
    """Untrained, best, last and TF-IDF, side by side."""
    before, best, last = scores[0], max(scores[1:], key=lambda line: line[dev(MRR)]), scores[-1]
    columns = Table()
    for name in ("encoder", "MRR", "recall@1", "candidates"):
        columns.add_column(name, justify="left" if name == "encoder" else "right")
    rows = {
        "untrained": before,
        f"trained, best of {len(scores) - 1} (step {best[STEP]})": best,
        f"trained, last (step {last[STEP]})": last,
        "TF-IDF, no training": tfidf,
    }
    for name, line in rows.items():
        mrr, recall, candidates = (line[dev(metric)] for metric in (MRR, RECALL_AT_1, CANDIDATES))
        columns.add_row(name, f"{mrr:.3f}", f"{recall:.3f}", f"{candidates:,.0f}")
    return columns


def next_steps(run: Path) -> str:
    """What to do with the result, and the same with one's own text."""
    unsee = BIN / "unsee"
    if unsee.is_relative_to(Path.cwd()):
        unsee = unsee.relative_to(Path.cwd())
    return f"""
These were random weights a few minutes ago: TF-IDF may well stay ahead.
The method is made for encoders that are already pretrained (see the README).

Use it:
  from sentence_transformers import SentenceTransformer
  model = SentenceTransformer("{run / "best"}")

Your own text, a sentence a line, from a pretrained encoder (a hub name, which is downloaded, or a folder):
  {unsee} prepare my.txt --out data/mine
  {unsee} train unsee-vicreg model.encoder=bert-base-uncased data.shards=data/mine run.dir=runs/mine
"""
