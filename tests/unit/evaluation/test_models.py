"""Which step an export stands at: what the run kept as best/, not what scored highest."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from unsee_dist.errors import UserError
from unsee_dist.evaluation.models import _step, open_model
from unsee_dist.publish import export as publish
from unsee_dist.publish.onnx import write_onnx
from unsee_dist.publish.sentence_transformers import write_encoder

POSITIONS = 38  # RoBERTa's table of 40 rows, less the two before the first position


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Untrained, then best, then collapsed under a score that looks better, then healthy and worse."""
    scored = ((0, 90.0, 0.0), (3, 70.0, 1.0), (6, 80.0, 0.0), (9, 60.0, 0.0))
    lines = [{"step": step, "dev/sts": sts, "dev/best": best} for step, sts, best in scored]
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(map(json.dumps, [*lines, {"step": 10, "loss": 1.0}])) + "\n"
    )
    return tmp_path


def test_best_is_what_the_run_kept_and_final_its_last_step(run: Path) -> None:
    assert [_step(run, which) for which in ("best", "final", "step-00000003")] == ["step3", "step10", ""]


def test_records_that_do_not_say_give_no_step(run: Path, tmp_path: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')  # cut off by a kill: the line is left out
    assert _step(run, "best") == "step3"
    with (run / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 12}\n')  # now it is damage in the middle
    assert _step(run, "best") == _step(tmp_path / "moved", "final") == ""


def roberta(folder: Path, max_tokens: int, vocabulary: int = 60) -> Path:
    """An export whose texts may have max_tokens, of an encoder that can take 38, and a tokenizer of `vocabulary` entries."""
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w3"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.BertProcessing(("w2", 2), ("w0", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="w1", unk_token="w3", cls_token="w0"
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    encoder = RobertaModel(config, add_pooling_layer=False)
    write_encoder(folder, encoder.state_dict(), config, tokenizer, "mean", max_tokens)
    return folder


@pytest.mark.parametrize("given", [POSITIONS, 40, 512, None])
def test_no_text_is_too_long_for_an_opened_model_nor_for_its_export(
    given: int | None, tmp_path: Path
) -> None:
    folder = roberta(tmp_path / "model", given or 512)
    if given is None:  # as many on the Hub: no limit anywhere
        for name, key in (
            ("sentence_bert_config.json", "max_seq_length"),
            ("tokenizer_config.json", "model_max_length"),
        ):
            settings = json.loads((folder / name).read_text())
            del settings[key]
            (folder / name).write_text(json.dumps(settings))
    texts = [" ".join(["w7"] * 1000), "w8 w9"]
    opened = open_model(str(folder))
    assert opened.max_tokens == POSITIONS
    vectors = opened.embed(texts)
    publish.export(str(folder), opened, publish.Evaluation(), tmp_path / "out", onnx=False)
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert written["sentence_bert_config.json"]["max_seq_length"] == POSITIONS
    assert written["tokenizer_config.json"]["model_max_length"] == POSITIONS
    assert written["tokenizer.json"]["truncation"]["max_length"] == POSITIONS
    assert (
        len(Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode(texts[0]).ids) == POSITIONS
    )
    assert np.allclose(open_model(str(tmp_path / "out")).embed(texts), vectors)


def test_a_model_whose_tokenizer_is_another_ones_is_refused(tmp_path: Path) -> None:
    roberta(tmp_path, POSITIONS, vocabulary=61)
    with pytest.raises(UserError, match=r"has 60 embeddings, and its tokenizer numbers up to 60 \('w60'\)"):
        open_model(str(tmp_path))


def test_modules_of_a_folders_own_are_never_run(tmp_path: Path) -> None:
    """sentence-transformers before 6 ran the code of a local folder without asking."""
    folder = roberta(tmp_path / "model", POSITIONS)
    mark = tmp_path / "was-run"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "own.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(
        UserError, match=r"comes with python code of its own \(own.Pooling\), which is never run"
    ):
        open_model(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"[" * 10_000, b"{", b"\xff", b""])
@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json"])
def test_a_garbled_file_of_an_export_is_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"is a half-written export: .*(config|modules)"):
        open_model(str(tmp_path))


@pytest.mark.parametrize("modules", ["7", "[7]", '[{"path": 7}]', "{}", '["x"]', "null"])
def test_modules_that_name_no_folders_are_a_sentence(tmp_path: Path, modules: str) -> None:
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(UserError, match="export"):
        open_model(str(tmp_path))


@pytest.mark.slow
def test_model_onnx_takes_what_the_tokenizer_gives_and_names_no_folder_of_this_machine(
    tmp_path: Path,
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = roberta(tmp_path / "model", POSITIONS)
    write_onnx(folder, "mean")
    ids_1T = np.array(
        [Tokenizer.from_file(str(folder / "tokenizer.json")).encode(" ".join(["w7"] * 500)).ids]
    )
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (vectors,) = session.run(None, {"input_ids": ids_1T, "attention_mask": np.ones_like(ids_1T)})
    assert (ids_1T.shape, vectors.shape) == ((1, POSITIONS), (1, 16))
    written = (folder / "model.onnx").read_bytes()
    assert b"site-packages" not in written
    assert b"/publish/onnx.py" not in written
