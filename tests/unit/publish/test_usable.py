"""One verdict on an encoder: what its training said, else what its embeddings are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizerFast

from unsee_dist.publish.usable import why_unusable
from unsee_dist.tracking.note import NOTE, ExportNote, note_of, write_note
from unsee_dist.training.checkpoint.manifest import NAME, Identity, Manifest
from unsee_dist.training.progress import Progress

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnop"]
TOKENIZER = BertTokenizerFast(vocab={word: place for place, word in enumerate(WORDS)})
COLLAPSED = {"dev/collapsed": 1.0, "dev/effective_rank": 1.2, "dev/std": 0.05}
SAID = "the embeddings have collapsed (effective rank 1.2, std 0.05)"


def sound(texts: list[str]) -> np.ndarray:
    return np.random.default_rng(len(texts)).normal(size=(len(texts), 16))


def on_a_line(texts: list[str]) -> np.ndarray:
    return np.outer(np.arange(1, len(texts) + 1) % 7 - 3.5, np.ones(16)) + np.eye(1, 16)


@pytest.mark.parametrize(
    ("embed", "words"),
    [
        (sound, None),
        (on_a_line, "lie on one line"),
        (lambda texts: np.ones((len(texts), 16)), "are one point"),
        (lambda texts: np.full((len(texts), 16), np.nan), "64 of 64 embeddings are not finite"),
    ],
)
def test_embeddings_of_any_folder_are_looked_at(tmp_path: Path, embed, words: str | None) -> None:
    why = why_unusable(tmp_path, TOKENIZER, embed)
    assert why is None if words is None else words in str(why)


@pytest.mark.parametrize(("scores", "why"), [(COLLAPSED, SAID), ({"dev/collapsed": 0.0}, None)])
def test_an_export_carries_the_verdict_of_its_training(
    tmp_path: Path, scores: dict[str, float], why: str | None
) -> None:
    (tmp_path / "README.md").write_text("# Mine\n")
    write_note(tmp_path, note_of("final", 90, scores))
    assert why_unusable(tmp_path, TOKENIZER, sound) == why
    assert ("The embeddings have collapsed" in (tmp_path / "README.md").read_text()) == (why is not None)


@pytest.mark.parametrize(("evaluated", "why"), [(90, SAID), (60, None)])
def test_a_checkpoint_carries_it_when_it_was_evaluated_at_its_step(
    tmp_path: Path, evaluated: int, why: str | None
) -> None:
    progress = Progress(step=90, updates=90, evaluated=evaluated, scores=COLLAPSED)
    manifest = Manifest(Identity({}, "e", "t", "c", "s", "r", "o"), progress, None, 90, None, ())
    (tmp_path / NAME).write_text(manifest.to_json())
    assert why_unusable(tmp_path, TOKENIZER, sound) == why


def test_the_note_says_what_the_folder_is_the_best_of(tmp_path: Path) -> None:
    scores = {"dev/sts": 68.99, "dev/gain": -0.74}
    note = note_of("best", 60, scores)
    assert note == ExportNote(
        60,
        "the best evaluation after training began, of step 60, dev/sts 68.99",
        None,
        "worse than before training: dev/sts 68.99, before 69.73",
    )
    (tmp_path / "README.md").write_text("# Mine\n")
    write_note(tmp_path, note)
    assert NOTE.read(tmp_path) == note
    assert (
        (tmp_path / "README.md")
        .read_text()
        .endswith(
            "This is the best evaluation after training began, of step 60, dev/sts 68.99. "
            "Worse than before training: dev/sts 68.99, before 69.73.\n"
        )
    )
