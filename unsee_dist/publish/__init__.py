"""A run becomes a model that others load.

sentence_transformers.py   the folder that `SentenceTransformer(path)` loads, in versions 5.1 to 6.x
from_checkpoint.py         the same of a checkpoint
card.py, onnx.py           the model card; model.onnx
export.py                  `unsee export`, and the upload to the Hub
"""
