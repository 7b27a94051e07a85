"""A GPU and NCCL that are not there: what a step would be refused, send, wait for and launch, in a process without a GPU.

gpu.py          the GPU, with all that stands for it installed
device.py       which tensors are on it, and what was counted
tensors.py      what python asks of tensors, and what makes them
operations.py   every operation of a thread: refused where two devices meet, and counted
cuda.py         what torch.cuda and deepspeed's accelerator answer
world.py        a process group of any size over it
group.py        the collectives of NCCL, and what it refuses
ledger.py       what the groups did
"""
