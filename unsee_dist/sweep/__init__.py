"""Sweeps: many runs of one configuration, and which settings are best.

settings, space -> load -> search (Ray Tune over Ray Train) -> ledger -> report

    sweep = load_sweep("configs/sweeps/tiny.yaml", ["data.shards=data/mine"])
    search(sweep)                       # the same call again continues
"""
