"""Processes that train together: their ranks, their shared state and their sums.

world.py       ranks from any launcher; an error of one rank is raised on all
engine.py      the only importer of DeepSpeed
masters.py     where each ZeRO stage keeps the fp32 master weights; replica.py: the EMA on every rank
reduce.py      sums over the global batch with their exact gradient; batchnorm.py
"""
