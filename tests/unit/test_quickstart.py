"""The quickstart's parts: what it starts, what it shows, and how it fails."""

import json
import socket
import sys
from pathlib import Path

import pytest
from rich.console import Console

from unsee_dist import quickstart
from unsee_dist.config import load
from unsee_dist.config.sections import Precision
from unsee_dist.data.corpus.shards import Shards
from unsee_dist.data.prepare.pipeline import PrepareSettings, prepare
from unsee_dist.distributed import engine
from unsee_dist.errors import UserError


def line(step: int, mrr: float, recall: float) -> dict[str, float]:
    return {"step": step, "dev/mrr": mrr, "dev/recall_at_1": recall, "dev/candidates": 1000.0}


def shown(table: object) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def rows(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in row.split("│")[1:-1]] for row in text.splitlines() if "│" in row]
    return {first: rest for first, *rest in cells}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_preset_is_right_with_what_the_command_gives(tmp_path: Path, precision: Precision) -> None:
    command = quickstart.training_command(tmp_path / "c", Path("e"), tmp_path / "r", 2, 1, precision)
    config = load(str(quickstart.PRESET), command[command.index("--config") + 2 :])
    assert (config.parallel.zero, config.parallel.precision) == (2, precision)
    assert config.evaluate.retrieval == str(tmp_path / "c" / "dev.tsv")
    assert config.train.batch % quickstart.RANKS == 0
    assert not config.track.mlflow


def test_ranks_share_the_cores_and_forget_another_launcher() -> None:
    given = {"PATH": "/elsewhere", "RANK": "3", "WORLD_SIZE": "4", "SLURM_STEP_NUM_TASKS": "4", "LANG": "C"}
    environment = quickstart.training_environment(given, cores=2, gpus=0)
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["LANG"] == "C"
    assert not {"RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"} & set(environment)
    assert quickstart.training_environment(given, cores=16, gpus=0)["OMP_NUM_THREADS"] == "8"
    assert quickstart.training_environment(given, cores=1, gpus=0)["OMP_NUM_THREADS"] == "1"
    assert "DS_ACCELERATOR" not in quickstart.training_environment(given, cores=2, gpus=1)


@pytest.mark.parametrize(("units", "precision"), [(True, "bf16"), (False, "fp32")])
def test_bf16_only_where_the_cpu_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, units: bool, precision: str
) -> None:
    monkeypatch.setattr(engine, "cpu_computes_bf16", lambda: units)
    assert quickstart.precision_here(gpus=0) == precision


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", quickstart.free_port()))


def test_the_table_shows_before_best_last_and_the_baseline() -> None:
    evaluations = [line(0, 0.08, 0.05), line(50, 0.3, 0.21), line(100, 0.2, 0.125)]
    cells = rows(shown(quickstart.table(evaluations, line(0, 0.4651, 0.382))))
    assert cells["untrained"] == ["0.080", "0.050", "1,000"]
    assert cells["trained, best of 2 (step 50)"] == ["0.300", "0.210", "1,000"]
    assert cells["trained, last (step 100)"] == ["0.200", "0.125", "1,000"]
    assert cells["TF-IDF, no training"] == ["0.465", "0.382", "1,000"]


def test_a_score_that_is_worse_than_before_is_shown_as_it_is() -> None:
    cells = rows(shown(quickstart.table([line(0, 0.3, 0.2), line(9, 0.1, 0.05)], line(0, 0.4, 0.3))))
    assert cells["trained, best of 1 (step 9)"] == ["0.100", "0.050", "1,000"]


def test_scores_come_from_the_evaluation_lines(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    lines = [line(0, 0.1, 0.05), {"step": 1, "loss": 2.0}, line(2, 0.2, 0.1)]
    metrics.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    assert [one["step"] for one in quickstart.evaluations(metrics)] == [0, 2]


def test_missing_scores_are_a_sentence(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps(line(0, 0.1, 0.05)) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Delete quickstart"):
        quickstart.evaluations(metrics)


@pytest.mark.parametrize(
    ("end", "code"), [("exit 1", 1), ("exit 74", 74), ("exit 75", 75), ("kill -9 $$", 137)]
)
def test_the_exit_code_of_the_training_is_that_of_the_command(
    end: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        quickstart.start_training(["sh", "-c", end], gpus=0)
    assert ended.value.code == code
    assert "the reason is above" in capsys.readouterr().err


def test_a_launcher_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(UserError, match="cannot be started"):
        quickstart.start_training(["no-such-program-anywhere"], gpus=0)


def test_the_encoder_never_reads_a_held_out_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "".join(f"Sentence number {n} is about thing w{n}x and nothing else.\n" for n in range(300))
    )
    prepare([str(text)], tmp_path / "corpus", PrepareSettings(dev=50))
    read: list[str] = []

    def listen(folder: Path, sentences: list[str], size: object, seed: int) -> int:  # noqa: ARG001
        read.extend(sentences)
        return 1

    monkeypatch.setattr("unsee_dist.model.fresh.write_fresh", listen)
    quickstart.make_encoder(tmp_path / "encoder", tmp_path / "corpus")
    dev = (tmp_path / "corpus" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(read) == Shards(tmp_path / "corpus").sentences == 250
    assert not set(read) & {pair.replace("\t", " ") for pair in dev}


def test_an_encoder_that_is_there_is_kept(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "".join(f"Sentence number {n} is about thing w{n}x and nothing else.\n" for n in range(300))
    )
    prepare([str(text)], tmp_path / "corpus", PrepareSettings())
    parameters = quickstart.make_encoder(tmp_path / "encoder", tmp_path / "corpus")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "encoder").iterdir()}
    again = quickstart.make_encoder(tmp_path / "encoder", tmp_path / "corpus")
    assert abs(again / parameters - 1) < 0.01
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "encoder").iterdir()} == files


def test_a_complete_corpus_is_kept_when_other_packages_are_installed_by_now(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "\n".join(f"The sentence of number {n} is kept here." for n in range(300)), encoding="utf-8"
    )
    kept = prepare([str(text)], tmp_path / "corpus", PrepareSettings(seed=0)).kept
    assert quickstart.make_corpus(tmp_path / "corpus") == kept
