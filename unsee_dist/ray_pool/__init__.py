"""Ray: work on the machines of a Ray cluster. The only door to ray; nothing here is imported before it is needed.

cluster.py   connect to a cluster, or start one on this machine; what it has, what is missing for a demand
tasks.py     a function over items, side by side on the cluster

Ray reads how to authenticate once, when it is imported, and sends its token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
~/.ray/auth_token) to a given address only when RAY_AUTH_MODE is set at that time: so it is set here. A cluster without
authentication ignores the token.
"""

import os
from pathlib import Path

if (
    "RAY_AUTH_TOKEN" in os.environ
    or "RAY_AUTH_TOKEN_PATH" in os.environ
    or (Path.home() / ".ray" / "auth_token").exists()
):
    os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
