"""A Hub of this machine: folders served under the addresses that huggingface_hub and datasets ask for.

FOLDER/datasets/OWNER/NAME/...  FOLDER/models/OWNER/NAME/...        the same files under every revision
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `folder`: its address (for HF_ENDPOINT), and what was asked for so far."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self, folder)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def answer(request: BaseHTTPRequestHandler, folder: Path) -> None:
    parts = urllib.parse.unquote(urllib.parse.urlsplit(request.path).path).strip("/").split("/")
    api = parts[:1] == ["api"]
    kind = next((part for part in parts[:2] if part in ("datasets", "models")), "models")
    owner, name, *rest = [part for part in parts if part not in ("api", kind)] + ["", ""]
    root, (what, revision, *path) = folder / kind / owner / name, [*rest, "", ""]
    inner = root.joinpath(*[part for part in path if part])
    if not name or not root.is_dir():
        return gone(request, "RepoNotFound")
    if what != "tree" and what != "resolve":
        revision = ([part for part in rest if part not in ("", "revision")] or ["main"])[0]
    at = revision if re.fullmatch("[0-9a-f]{40}", revision) else digest(str(root))
    head = {"X-Repo-Commit": at}
    if api and what == "tree":
        found = [about(each, root) for each in sorted(inner.rglob("*") if inner.is_dir() else [])]
        return (
            send(request, 200, json.dumps(found).encode(), head) if found else gone(request, "EntryNotFound")
        )
    if api:
        files = [
            {"rfilename": str(each.relative_to(root))} for each in sorted(root.rglob("*")) if each.is_file()
        ]
        about_it = {"id": f"{owner}/{name}", "sha": at, "private": False, "tags": [], "siblings": files}
        return send(request, 200, json.dumps(about_it).encode(), head)
    if what == "resolve" and inner.is_file():
        content = inner.read_bytes()
        return send(request, 200, content, head | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})
    return gone(request, "EntryNotFound")


def gone(request: BaseHTTPRequestHandler, why: str) -> None:
    send(request, 404, b"{}", {"X-Error-Code": why})


def about(path: Path, root: Path) -> dict[str, object]:
    name = str(path.relative_to(root))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": digest(name)}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": digest(name)}


def digest(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def send(request: BaseHTTPRequestHandler, code: int, content: bytes, headers: dict[str, str]) -> None:
    request.send_response(code)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(content)
