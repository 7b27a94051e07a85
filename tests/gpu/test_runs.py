"""Whole runs on a GPU: killed and resumed, repeated, exported; by python and by torchrun."""

from __future__ import annotations

from pathlib import Path

import pytest
from integration import ranks
from integration import tiny as launch
from integration.tiny import Tiny

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(540)]
TOLD = ("model.dropout=0.1", "data.workers=1", "train.steps=10", "checkpoint.every=3", "evaluate.every=5")


def weights(folder: Path) -> bytes:
    return (folder / "final" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("precision", "zero", "count"),  # one rank alone has nothing to shard: it trains at stage 0
    [("fp32", 0, 1), ("fp16", 0, 1), ("bf16", 1, 2), ("fp16", 2, 2), ("bf16", 3, 2)],
)
def test_a_killed_run_continues_bit_for_bit(  # noqa: PLR0913  (fixtures and what is varied)
    tiny: Tiny, device: str, variables: dict[str, str], tmp_path: Path, precision: str, zero: int, count: int
) -> None:
    variables = variables | {"UNSEE_SHARE_GPU": "1"}
    if precision == "fp16" and device != "cuda":
        pytest.skip("fp16 needs a GPU")
    settings = (*TOLD, f"parallel.precision={precision}", f"parallel.zero={zero}")
    through, killed = tmp_path / "through", tmp_path / "killed"
    ranks.start(count, tiny.config, f"run.dir={through}", *settings, **variables).succeed()
    first = ranks.start(
        count, tiny.config, f"run.dir={killed}", *settings, UNSEE_KILL_AT="backward 8 0", **variables
    )
    assert first.wait()[0] == -9, first.text()
    ranks.start(count, tiny.config, f"run.dir={killed}", *settings, **variables).succeed()
    assert launch.history(killed) == launch.history(through)
    assert launch.traced(killed) == launch.traced(through)
    assert weights(killed) == weights(through)


def test_micro_batches_and_rows_change_no_result(
    tiny: Tiny, variables: dict[str, str], tmp_path: Path
) -> None:
    cuts = {
        "whole": (1,),
        "pieces": (1, "train.micro_batch=3"),
        "padded": (1, "data.pack=false"),
        "two ranks at stage 1": (2, "train.micro_batch=3", "parallel.zero=1"),
        "two ranks at stage 3": (2, "parallel.zero=3"),
    }
    shared = variables | {"UNSEE_SHARE_GPU": "1"}
    for name, (count, *how) in cuts.items():
        ranks.start(count, tiny.config, f"run.dir={tmp_path / name}", *TOLD, *how, **shared).succeed()
    whole = launch.losses(tmp_path / "whole")
    assert len(whole) == 10
    for name in cuts:
        assert launch.losses(tmp_path / name) == pytest.approx(whole, rel=2e-5), name


def test_torchrun_and_python_train_on_a_gpu(tiny: Tiny, variables: dict[str, str], tmp_path: Path) -> None:
    environment = launch.environment(**variables)
    for launcher in ("torchrun", "python"):
        folder = tmp_path / launcher
        arguments = launch.command(launcher, 1, tiny.config, f"run.dir={folder}", *TOLD)
        launch.succeed(arguments, env=environment, timeout_s=300)
    assert weights(tmp_path / "torchrun") == weights(tmp_path / "python")


def test_the_exported_encoder_is_loaded_by_sentence_transformers(
    tiny: Tiny, device: str, variables: dict[str, str], tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    ranks.start(1, tiny.config, f"run.dir={tmp_path / 'run'}", *TOLD, **variables).succeed()
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "run" / "final"), device=device)
    embeddings = model.encode(["the old river follows a bright garden .", "a house ."])
    assert embeddings.shape == (2, 32)


def test_ranks_that_share_a_card_train_as_one(tiny: Tiny, variables: dict[str, str], tmp_path: Path) -> None:
    shared = variables | {"UNSEE_SHARE_GPU": "1"}
    for count in (1, 2):
        folder = tmp_path / f"{count}"
        ranks.start(count, tiny.config, f"run.dir={folder}", *TOLD, "parallel.zero=1", **shared).succeed()
    one, two = launch.losses(tmp_path / "1"), launch.losses(tmp_path / "2")
    assert two == pytest.approx(one, rel=2e-5)
