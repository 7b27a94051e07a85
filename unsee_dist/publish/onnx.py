"""model.onnx: token ids and mask in, one embedding a sentence out, pooling inside; checked after it is written.

    mean: z = Σ_t m_t h_t / Σ_t m_t        cls: z = h_0        inputs: input_ids, attention_mask (B, T) int64

Needs the extra `onnx`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unsee_dist.config.sections import Pooling
from unsee_dist.errors import UserError
from unsee_dist.log import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "model.onnx"
BOUND = 1e-4  # the largest difference of any number of any embedding
PROBE = [
    "A short one.",
    "A sentence that is a good deal longer than the first of them, so that rows are padded.",
    "b",
]


class Pooled(torch.nn.Module):
    """An encoder with its pooling: (B, T) ids and mask -> (B, D)."""

    def __init__(self, encoder: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden_BTD = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        if self.pooling == "cls":
            return hidden_BTD[:, 0]
        mask_BT1 = attention_mask[..., None].to(hidden_BTD.dtype)
        return (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


def write_onnx(folder: Path, pooling: Pooling) -> None:
    """Write model.onnx into an export. UserError: the extra is missing, or its embeddings are not the encoder's."""
    import onnx  # noqa: F401 (see _strip_paths)
    import onnxruntime
    import onnxscript  # noqa: F401 (torch's exporter needs it, and without it ends with a traceback)
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False).eval()
    pooled = Pooled(encoder, pooling).eval()
    batch = tokenizer(PROBE, padding=True, truncation=True, return_tensors="pt")
    inputs = (batch["input_ids"], batch["attention_mask"])
    rows, tokens = torch.export.Dim("rows", min=1), torch.export.Dim("tokens", min=2)
    with torch.no_grad(), warnings.catch_warnings(), quiet("torch.onnx"):  # "torchvision is not installed"
        warnings.simplefilter("ignore")
        torch.onnx.export(
            pooled, inputs, folder / NAME, input_names=["input_ids", "attention_mask"],
            output_names=["sentence_embedding"], dynamic_shapes=({0: rows, 1: tokens}, {0: rows, 1: tokens}),
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    _strip_paths(folder / NAME)
    session = onnxruntime.InferenceSession(folder / NAME, providers=["CPUExecutionProvider"])
    for texts in (PROBE, PROBE[1:], PROBE[2:]):  # other shapes than the one it was traced with
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            ours = pooled(batch["input_ids"], batch["attention_mask"]).numpy()
        feed = {name: batch[name].numpy() for name in ("input_ids", "attention_mask")}
        gap = float(np.abs(session.run(None, feed)[0] - ours).max())
        if not gap <= BOUND:
            (folder / NAME).unlink()
            raise UserError(
                f"--onnx: embeddings differ by {gap:.1e}, allowed {BOUND:.0e}: not written. Export without --onnx."
            )


def _strip_paths(path: Path) -> None:
    """Without the lines of code that each node comes from: torch writes them with the folders of this machine."""
    import onnx

    model = onnx.load(path)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for part in (model, model.graph, *model.functions, *nodes, *model.graph.value_info):
        del part.metadata_props[:]
    onnx.save(model, path)
