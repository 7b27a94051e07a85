"""A bug in a thread that nobody waits for ends the process with its traceback and code 1; it is never lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from unsee_dist.errors import REPORT_TO, ExitCode

PLANTED = """
import sys, threading, time
from pathlib import Path
def planted(*_, **__):
    raise {error}("planted")
"""
LAUNCHER = """
from unsee_dist.supervision import signals
signals._parent_and_group = planted
threading.Thread(target=signals._follow, args=(1,), name="launcher", daemon=True).start()
"""
MEETING = """
from unsee_dist.supervision.signals import StopSignal
from unsee_dist.supervision import signals
signals.MEETING_S, signals.suppress = 0.1, planted
stop = StopSignal()
stop.meeting = True
stop._receive(15)
"""
GRACE = """
from unsee_dist.supervision.signals import StopSignal
stop = StopSignal()
stop._before = 1
del stop.name
stop.requested = True
stop.set_grace(0.1)
"""
TRIAL = """
import tempfile
from types import SimpleNamespace
from unsee_dist.sweep.trial import _wait_for_end
place, stop = SimpleNamespace(exists=planted), SimpleNamespace(requested=False)
threading.Thread(target=_wait_for_end, args=(place, stop), daemon=True).start()
"""
WORKER = """
import multiprocessing
from types import SimpleNamespace
from unsee_dist.data.processes import end_with_parent
multiprocessing.parent_process = lambda: SimpleNamespace(join=planted)
end_with_parent()
"""
RELAY = """
from datetime import timedelta
from torch._C._distributed_c10d import TCPStore
from unsee_dist.distributed import relay
root = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
"""
ACCEPT = (
    RELAY
    + """
relay.Relay._wait = planted
relay.Relay(root.clone(), Path(sys.argv[1]))
"""
)
SERVE = (
    RELAY
    + """
relay.OPERATIONS["add"] = planted
relay.Relay(root.clone(), Path(sys.argv[1]))
client = relay.find_relay(Path(sys.argv[1]), lambda: False, timedelta(seconds=20))
threading.Thread(target=client.add, args=("n", 1), daemon=True).start()
"""
)
WATCHDOG = """
from unsee_dist.distributed.process_group import join_world
from types import SimpleNamespace
from unsee_dist.supervision.watchdog import Watchdog
STORE = SimpleNamespace(add=lambda *_: 1, set=lambda *_: None)
watchdog = Watchdog(join_world(), 60)
watchdog.period_s, watchdog._store, watchdog._publish = 0.1, STORE, planted
watchdog._thread.start()
"""
ENDED = '\ntime.sleep(30)\nprint("goes on")\n'


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (LAUNCHER, "KeyError"),
        (MEETING, "KeyError"),
        (GRACE, "AttributeError"),
        (TRIAL, "TypeError"),
        (WORKER, "TypeError"),
        (ACCEPT, "KeyError"),
        (ACCEPT, "RuntimeError"),
        (SERVE, "TypeError"),
        (SERVE, "RuntimeError"),
        (WATCHDOG, "RuntimeError"),
    ],
)
def test_a_bug_in_a_thread_ends_the_process(script: str, error: str, tmp_path: Path) -> None:
    code = PLANTED.format(error=error) + script + ENDED
    command = [sys.executable, "-c", code, str(tmp_path / "store.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == ExitCode.BUG, done
    assert "Traceback" in done.stderr
    assert error in done.stderr
    assert REPORT_TO in done.stderr
    assert "goes on" not in done.stdout


SILENT = """
import os, sys, time
from unsee_dist.errors import ends_process
from unsee_dist.supervision.signals import StopSignal
class Closed:
    def write(self, _): raise OSError(32, "Broken pipe")
    flush = isatty = lambda self: self.write("")
sys.stderr = Closed()
"""
OF_GRACE = 'stop = StopSignal()\nstop._before, stop.name = 1, "SIGTERM"\nstop.requested = True\nstop.set_grace(0.1)\n'
OF_BUG = "@ends_process\ndef work(): raise KeyError('planted')\nwork()\n"


@pytest.mark.parametrize(("script", "code"), [(OF_GRACE, ExitCode.STOPPED), (OF_BUG, ExitCode.BUG)])
def test_a_process_that_nobody_listens_to_ends_all_the_same(script: str, code: ExitCode) -> None:
    done = subprocess.run([sys.executable, "-c", SILENT + script + "time.sleep(30)\n"], timeout=100)
    assert done.returncode == code
