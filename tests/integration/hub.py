"""A Hub of this machine: folders served under the addresses that huggingface_hub and datasets ask for.

FOLDER/datasets/OWNER/NAME/...  FOLDER/models/OWNER/NAME/...        the same files under every revision

Whoever has TOKEN may upload a model, weights by git-lfs's own protocol as on the Hub.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "hf_of_this_machine"


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `folder`: its address (for HF_ENDPOINT), and what was asked for so far."""
    requests: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command in ("POST", "PUT") and "paths-info" not in self.path:
                receive(self, folder, body)
            else:
                answer(self, folder)

        do_HEAD = do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
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
        entries = [about(each, root) for each in sorted(inner.rglob("*") if inner.is_dir() else [])]
        return (
            send(request, 200, json.dumps(entries).encode(), head)
            if entries
            else gone(request, "EntryNotFound")
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


def receive(request: BaseHTTPRequestHandler, folder: Path, body: bytes) -> None:
    """An upload, in the order of its requests: repository, card's check, how each file is to come, weights, commit."""
    url = f"http://{request.headers['Host']}"
    parts = urllib.parse.urlsplit(request.path).path.strip("/").split("/")
    lfs = folder / "lfs"
    if parts[0] == "lfs":  # the address itself is the right to use it
        lfs.mkdir(exist_ok=True)
        (lfs / parts[1]).write_bytes(body)
        send(request, 200 if hashlib.sha256(body).hexdigest() == parts[1] else 400, b"{}", {})
        return
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        send(request, 401, b'{"error": "Invalid username or password."}', {})
        return
    reply: dict[str, Any] = {}
    match parts:
        case ["api", "repos", "create"]:
            asked = json.loads(body)
            (folder / "models" / asked["organization"] / asked["name"]).mkdir(parents=True, exist_ok=True)
            reply = {"url": f"{url}/{asked['organization']}/{asked['name']}"}
        case ["api", "models", _, _, "preupload", _]:
            reply["files"] = [
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for path in (file["path"] for file in json.loads(body)["files"])
            ]
        case [_, _, "info", "lfs", "objects", "batch"]:
            reply["objects"] = [
                asked | {"actions": {"upload": {"href": f"{url}/lfs/{asked['oid']}"}}}
                for asked in json.loads(body)["objects"]
            ]
        case ["api", "models", owner, name, "commit", _]:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                path = folder / "models" / owner / name / value.get("path", "")
                if line["key"] in ("file", "lfsFile"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                if line["key"] == "file":
                    path.write_bytes(base64.b64decode(value["content"]))
                if line["key"] == "lfsFile":
                    (lfs / value["oid"]).rename(path)
            reply = {"commitOid": digest(name), "commitUrl": f"{url}/{owner}/{name}/commit/{digest(name)}"}
    send(request, 200, json.dumps(reply).encode(), {})


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
