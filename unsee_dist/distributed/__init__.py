"""Processes that train together: their ranks, their shared state and their sums.

process_group.py  joined under any launcher, left, ended together; rendezvous.py: where the ranks meet; slurm.py: a bare `srun`
world.py       this process among all, and what they tell each other; shared_errors.py: an error of one rank is that of all
engine.py      the only importer of DeepSpeed
masters.py     where each ZeRO stage keeps the fp32 master weights; replica.py: the EMA on every rank
reduce.py      sums over the global batch with their exact gradient; batchnorm.py
"""
