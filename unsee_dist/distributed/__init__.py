"""Processes that train together: who they are, what they share, and how they sum.

world.py       ranks from any launcher; a failure of one rank is known to all
engine.py      DeepSpeed behind a small door
masters.py     where the fp32 masters lie under each ZeRO stage; replica.py: the EMA on every rank
reduce.py      sums over the global batch with their exact gradient; batchnorm.py
"""
