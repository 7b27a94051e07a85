"""`unsee doctor`: is this machine, or every machine of a job, ready for a run?

machine.py    versions, accelerator, cores, shared memory, open files, disk
services.py   Hub or cache, MLflow, Slurm, Ray, ports
ranks.py      all ranks that were started: a real all-reduce, clocks, what differs between hosts
findings.py   PASS, WARN or FAIL, each with its remedy; the table and the JSON
"""

from unsee_dist.doctor.findings import Finding, Level
from unsee_dist.doctor.ranks import examine

__all__ = ["Finding", "Level", "examine"]
