"""Debian's headless Chromium for a test, driven through ChromeDriver by the W3C's protocol: JSON over HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration import tiny

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--window-size=1600,1100",
]


class Browser:
    """One window. Elements are found by XPath, and waited for: pages are drawn by scripts."""

    def __init__(self, driver: str, profile: Path) -> None:
        self._driver = driver
        options = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._session = self._ask("POST", "/session", wanted)["sessionId"]

    def open(self, address: str) -> None:
        self._here("POST", "/url", {"url": address})

    def find(self, xpath: str, timeout_s: float = 300) -> str:
        """The first element; AssertionError with the page's text when it does not come."""
        until = time.monotonic() + timeout_s
        while not (elements := self.all(xpath)):
            assert time.monotonic() < until, f"{xpath} is not on the page:\n{self.text()}"
            time.sleep(0.3)
        return elements[0]

    def all(self, xpath: str) -> list[str]:
        elements = self._here("POST", "/elements", {"using": "xpath", "value": xpath})
        return [next(iter(element.values())) for element in elements]

    def click(self, xpath: str) -> None:
        """By the page's own event, so that what floats above does not take it; again when the page was redrawn."""
        for _ in range(20):
            element = {"element-6066-11e4-a52e-4f735466cecf": self.find(xpath)}
            with contextlib.suppress(urllib.error.HTTPError):
                self.run("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", element)
                return
            time.sleep(0.3)
        raise AssertionError(f"{xpath} could not be clicked")

    def run(self, script: str, *arguments: Any) -> Any:
        return self._here("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol, for what the W3C's does not have: a screen's width, dark colours, paper."""
        return self._here("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._here("GET", "/screenshot")))

    def close(self) -> None:
        self._ask("DELETE", f"/session/{self._session}")

    def _here(self, method: str, path: str, body: Any = None) -> Any:
        return self._ask(method, f"/session/{self._session}{path}", body)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._driver + path, data, {"Content-Type": "application/json"})
        request.method = method
        with urllib.request.urlopen(request, timeout=180) as answer:
            return json.load(answer)["value"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    _need_chromium()
    port = tiny.free_port()
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, start_new_session=True, text=True
    )
    profile = Path(tempfile.mkdtemp(prefix="chromium-"))
    try:
        _wait_for(f"http://127.0.0.1:{port}/status")
        browser = Browser(f"http://127.0.0.1:{port}", profile)
        yield browser
        browser.close()
    finally:
        tiny.kill(driver)
        shutil.rmtree(profile, ignore_errors=True)


def _wait_for(address: str) -> None:
    until = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        assert time.monotonic() < until, f"nothing answers at {address}"
        time.sleep(0.2)


def _need_chromium() -> None:
    def there() -> bool:
        return all(map(shutil.which, ("chromium", "chromedriver")))

    if not there() and os.geteuid() == 0:
        with contextlib.suppress(FileNotFoundError):  # no Debian: said by the skip
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=300, check=False)
            install = [
                "apt-get",
                "install",
                "--yes",
                "--no-install-recommends",
                "chromium",
                "chromium-driver",
            ]
            subprocess.run(install, capture_output=True, timeout=600, check=False)
    if not there():
        pytest.skip("needs Chromium: could not be installed (apt-get install chromium chromium-driver)")
