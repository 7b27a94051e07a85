"""What a run will be and need, before it starts: `unsee train --dry-run` and `unsee config check`.

derived.py   steps, batch a rank, warmup, evaluations, checkpoints
memory.py    bytes a rank and bytes of a checkpoint, by formula
probe.py     some real steps of one rank's part: seconds, and the most memory they took
"""
