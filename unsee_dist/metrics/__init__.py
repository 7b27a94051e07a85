"""Embeddings to numbers: no files, no ranks, no printing.

cosine.py           unit vectors, and when they are one point
sts.py              Spearman against people's scores
retrieval.py        does a query find its answer
geometry.py         spread, rank, spectrum, alignment, uniformity
tfidf.py            the baseline that only counts words
embedding_check.py  whether embeddings can be scored at all
verdict.py          what scores say of an encoder: collapsed, worse or better than before training
names.py            the names of all numbers of a run, and which of them decides
task_score.py       the score of an encoder on one task
"""
