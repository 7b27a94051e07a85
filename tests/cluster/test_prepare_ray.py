"""`--engine ray` on two raylets writes the bytes of one process, also when it is killed and when a machine dies."""

import time
from pathlib import Path

import psutil
import pytest
from cluster.raylets import raylets
from integration import tiny as making
from integration.preparing import contents, finish, start, write_text

UNSEE = str(making.BIN / "unsee")


def runs(out: Path) -> int:
    return len(list((out / "preparing").glob("run-?????" + "?")))


@pytest.mark.slow
def test_a_cluster_writes_the_bytes_of_one_process_whatever_dies(tmp_path: Path) -> None:
    text = write_text(tmp_path / "t.txt")
    ended, told = finish(start(text, tmp_path / "one", 1))
    assert ended == 0, told
    with raylets() as cluster:
        out = tmp_path / "killed"
        for done in (2, 20, 40):  # runs of 70 or so
            driver = start(text, out, "ray", env=cluster.env)
            while driver.poll() is None and runs(out) < done:
                time.sleep(0.02)
            assert driver.poll() is None, driver.communicate()[1]
            psutil.Process(driver.pid).kill()
            driver.wait()
            assert not (out / "index.json").exists()
        driver = start(text, out, "ray", env=cluster.env)
        while driver.poll() is None and runs(out) < 50:
            time.sleep(0.02)
        cluster.kill_node(2)
        ended, told = finish(driver, 300)
        assert ended == 0, told
        assert contents(out) == contents(tmp_path / "one")
        told = making.succeed(
            [UNSEE, "prepare", str(text), "--out", str(tmp_path / "command"), "--engine", "ray"],
            env=cluster.env,
        ).stdout
        assert "30,000" in told
    ended, told = finish(
        start(text, tmp_path / "killed", "ray", env=cluster.env)
    )  # it is there: nothing to do
    assert ended == 0, told


def test_a_cluster_that_is_not_there_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("one sentence of five words\n")
    env = making.environment(RAY_ADDRESS=f"127.0.0.1:{making.free_port()}")
    out = tmp_path / "out"
    for more, said in (
        ([], "no Ray cluster answers at 127.0.0.1"),
        (["--processes", "2"], "processes = 2 is for"),
    ):
        done = making.run([UNSEE, "prepare", str(text), "--out", str(out), "--engine", "ray", *more], env=env)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr
        assert not out.exists()
