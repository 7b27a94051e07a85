"""What deepspeed takes along on every rank: neither mlflow, nor a probe of what it could compile."""

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_MLFLOW = """
import sys
from unsee_dist.distributed.deepspeed_import import import_deepspeed
deepspeed = import_deepspeed()
assert deepspeed.initialize and deepspeed.autotuning.autotuner.has_mlflow is False
assert not any(name.split(".")[0] == "mlflow" for name in sys.modules)
import mlflow
assert mlflow.MlflowClient and import_deepspeed() is deepspeed and sys.modules["mlflow"] is mlflow
"""

# A GPU is pretended as far as deepspeed's builders ask for one before they start a compiler.
ON_CUDA = """
import os
import sys
import torch
import torch.utils.cpp_extension
started = []
STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.system", "os.exec")
sys.addaudithook(lambda event, args: started.append(args[0]) if event in STARTS else None)
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_properties = lambda *_: type("GPU", (), {"major": 9, "minor": 0})()
torch.cuda.get_device_capability = lambda *_: (9, 0)
torch.version.cuda = "13.0"
torch.utils.cpp_extension.CUDA_HOME = os.environ["CUDA_HOME"]
from unsee_dist.distributed.deepspeed_import import import_deepspeed
deepspeed = import_deepspeed()
assert deepspeed.accelerator.get_accelerator().device_name() == "cuda"
from deepspeed.comm.torch import build_shm_op
build_shm_op()  # what init_distributed asks
assert deepspeed.ops.__compatible_ops__["any"] is False
print("started", len(started))
deepspeed.ops._probe_compatible_ops()  # the negative control
print("started", len(started))
"""


def python(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | variables
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=env
    )


def test_deepspeed_comes_without_mlflow_which_can_still_be_imported() -> None:
    done = python(WITHOUT_MLFLOW)
    assert done.returncode == 0, done.stderr


def test_no_compiler_is_started_on_a_gpu(tmp_path: Path) -> None:
    nvcc, calls = tmp_path / "bin" / "nvcc", tmp_path / "calls"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho called >>{calls}\necho Cuda compilation tools, release 13.0, V13.0.1\n")
    nvcc.chmod(0o755)
    path = f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}"
    done = python(ON_CUDA, DS_ACCELERATOR="cuda", CUDA_HOME=str(tmp_path), PATH=path)
    assert done.returncode == 0, done.stderr
    here, probed = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("started")]
    assert here == 0
    assert probed > 0, "the probe starts no compiler here: this test could not fail"
    assert calls.exists(), "the probe does not ask nvcc here: this test could not fail"
