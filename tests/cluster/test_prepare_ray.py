"""`--engine ray` on two raylets writes the bytes of one process, also when it is killed and when a machine dies."""

import subprocess
import time
from pathlib import Path

import pytest
from cluster.raylets import raylets
from integration import tiny as making
from integration.preparing import contents, finish, start, write_text

UNSEE = str(making.BIN / "unsee")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_cluster_writes_the_bytes_of_one_process_whatever_dies(tmp_path: Path) -> None:
    text, out = write_text(tmp_path / "t.txt"), tmp_path / "out"
    ended, errors = finish(start(text, tmp_path / "one", 1))
    assert ended == 0, errors
    with raylets() as cluster:
        driver = start(text, out, "ray", env=cluster.env)
        wait_for_runs(driver, out, 10)
        driver.kill()
        driver.wait()
        assert not (out / "index.json").exists()
        driver = start(text, out, "ray", env=cluster.env)
        wait_for_runs(driver, out, 30)
        cluster.kill_node(2)
        ended, errors = finish(driver, 900)
    assert ended == 0, errors
    assert contents(out) == contents(tmp_path / "one")


def wait_for_runs(driver: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until so many of the 70 or so runs are written."""
    while len(list((out / "preparing").glob("run-??????"))) < count:
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.02)


def test_a_cluster_that_is_not_there_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("one sentence of five words\n")
    env = making.environment(RAY_ADDRESS=f"127.0.0.1:{making.free_port()}")
    out = tmp_path / "out"
    for more, sentence in (
        ([], "no Ray cluster answers at 127.0.0.1"),
        (["--processes", "2"], "--processes = 2 is for"),
    ):
        done = making.run([UNSEE, "prepare", str(text), "--out", str(out), "--engine", "ray", *more], env=env)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert sentence in done.stderr
        assert not out.exists()
