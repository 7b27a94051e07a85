"""What workers are forked from starts with the run: it imports torch beside it, and Ctrl-C does not end that import."""

import subprocess
import sys

import pytest

STARTED = """
import multiprocessing, os, signal, sys
from multiprocessing import forkserver
from unsee_dist.train import begin_workers, config_of, parse

def imported(names):
    return [name in sys.modules for name in names]

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    begin_workers(config_of(parse(["--config", "unsee-vicreg", "data.workers=%d"])))
    assert "torch" not in sys.modules
    pid = forkserver._forkserver._forkserver_pid
    print(pid is not None)
    if pid is None:
        sys.exit()
    os.kill(pid, signal.SIGINT)  # before or in the middle of its imports
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:
        print(pool.apply(imported, (["torch", "unsee_dist.data.stream.stream", "deepspeed"],)))
    assert forkserver._forkserver._forkserver_pid == pid, "it was ended, and started again"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


@pytest.mark.parametrize(
    ("workers", "lines"), [(2, ["True", "[True, True, False]"]), (0, ["False"])], ids=["two", "none"]
)
def test_the_fork_server_of_a_run_starts_before_torch(tmp_path, workers: int, lines: list[str]) -> None:
    script = tmp_path / "started.py"
    script.write_text(STARTED % workers)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines


PLAIN = """
import multiprocessing, os, signal
from multiprocessing import forkserver
signal.signal(signal.SIGINT, signal.SIG_DFL)  # where it was ignored, a child would ignore it
multiprocessing.set_forkserver_preload(["unsee_dist.data.stream.stream"])
forkserver.ensure_running()
pid = forkserver._forkserver._forkserver_pid
os.kill(pid, signal.SIGINT)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0)
os._exit(0)
"""


def test_an_interrupt_ends_one_that_is_started_as_python_does() -> None:
    """The negative control."""
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["True"], done.stderr
