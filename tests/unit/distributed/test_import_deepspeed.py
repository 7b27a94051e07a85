"""deepspeed's autotuner takes mlflow along where it is installed: no rank pays for that, and a run can still log."""

import subprocess
import sys

SCRIPT = """
import sys
from unsee_dist.distributed.engine import import_deepspeed
deepspeed = import_deepspeed()
assert deepspeed.initialize and deepspeed.autotuning.autotuner.has_mlflow is False
assert not any(name.split(".")[0] == "mlflow" for name in sys.modules)
import mlflow
assert mlflow.MlflowClient and import_deepspeed() is deepspeed and sys.modules["mlflow"] is mlflow
"""


def test_deepspeed_comes_without_mlflow_which_can_still_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
