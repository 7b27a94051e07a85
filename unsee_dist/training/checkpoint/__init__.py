"""Checkpoints that are independent of the number of ranks, the ZeRO stage and the precision.

    checkpoints/
        newest                           the name of the newest complete folder
        step-00000500/
            rank-00000.safetensors ...   "master/online.…@0" etc.: parts of flattened fp32 tensors, by name and start
            buffers.safetensors          the objective's state, whole
            manifest.json                format, identity, progress, digests of the files; written last

Kinds: master, exp_avg, exp_avg_sq (Adam), ema (the target). Every part is written once, by the rank that holds it
(by one of them where several do), and read back by name and range, so any layout can read what any other wrote.
deepspeed's own checkpoints lose the frozen target and every buffer but rank 0's.

state.py     a run's state <-> named parts
saving.py    parts -> a folder, written atomically
manifest.py  the content of a checkpoint, typed, with the version of its format
directory.py the folders: verified, chosen, listed, removed (no torch: the command line imports it)
"""
