"""A stand-in of the Hugging Face hub on loopback: repositories in memory, and faults on demand.

It answers what `huggingface_hub` and `datasets` ask when they read. A repository is called
`acme/chat`, that of a dataset `datasets/acme/set`. Files with an ending of `_LARGE` come from a
second address, as from the hub's CDN, which refuses a request that brings a token along.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
import pytest
from huggingface_hub import close_session, constants

Files = dict[str, bytes]
Answer = tuple[int, dict[str, str], bytes]

_LARGE = (".safetensors", ".bin", ".parquet", ".arrow", ".gz", ".zst")
_REPO = "(?P<name>[^/]+/[^/]+)"
_INFO = re.compile(
    rf"/api/(?P<kind>models|datasets)/{_REPO}"
    r"(/(?P<verb>revision|tree|paths-info|refs)(/(?P<revision>[^/]+))?(/(?P<below>.+))?)?"
)
_FILE = re.compile(rf"/((?P<kind>datasets)/)?{_REPO}/resolve/(?P<revision>[^/]+)/(?P<below>.+)")


@dataclass
class Repo:
    """A repository: its commits, old to new, and the commit of each branch or tag."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False  # everybody sees its files' names, those whom it knows their content
    private: bool = False
    moved_to: str | None = None
    known: set[str] = field(default_factory=set)  # tokens that may read it


@dataclass
class Fault:
    """What goes wrong with requests: those from the `at`-th that match on, `times` of them."""

    match: str  # searched in "GET hub /api/models/acme/chat"
    do: Literal["status", "drop", "cut", "reset", "stall"]
    at: int = 1
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    seen: int = 0

    def hits(self, line: str) -> bool:
        """Count a request, and say whether this one fails."""
        if not re.search(self.match, line):
            return False
        self.seen += 1
        return self.at <= self.seen < self.at + self.times


class Hub:
    """The repositories, the faults to come and the requests so far."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: set[str] = set()
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self._came = Condition()
        self.over = Event()  # a stalled request waits for the end of the test
        self._servers = [_Server(("127.0.0.1", 0), _handler(self, side)) for side in ("hub", "cdn")]
        self.url, self.cdn = (f"http://127.0.0.1:{each.server_port}" for each in self._servers)
        for server in self._servers:
            Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def push(self, name: str, files: Path | Mapping[str, bytes | str], ref: str = "main") -> str:
        """Add a commit with these files and no others to a branch or tag; gives its hash."""
        if isinstance(files, Path):
            found = (path for path in sorted(files.rglob("*")) if path.is_file())
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in found}
        content = {k: v.encode() if isinstance(v, str) else v for k, v in files.items()}
        repo = self.repos.setdefault(name, Repo())
        digest = sha1(f"{name} {len(repo.commits)}".encode())
        for path in sorted(content):
            digest.update(path.encode() + content[path])
        commit = digest.hexdigest()
        repo.commits[commit] = content
        repo.refs[ref] = commit
        return commit

    def fail(self, match: str, do: Any, **how: Any) -> None:
        """Let requests fail; see `Fault`."""
        self.faults.append(Fault(match, do, **how))

    def note(self, line: str) -> None:
        """A request came."""
        with self._came:
            self.log.append(line)
            self._came.notify_all()

    def wait_for(self, match: str, times: int = 1) -> None:
        """Wait until so many requests came in which this is found."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.asked(match)) >= times, 60)

    def asked(self, match: str) -> list[str]:
        """The requests so far in which this is found."""
        return [line for line in self.log if re.search(match, line)]

    def close(self) -> None:
        """End the servers, and what waits on them."""
        self.over.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is what some tests want."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*_)


def _handler(hub: Hub, side: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def log_message(self, *_: Any) -> None:
            """`Hub.log` has the requests."""

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            line = f"{self.command} {side} {unquote(urlsplit(self.path).path)}"
            hub.note(line)
            fault = next((each for each in hub.faults if each.hits(line)), None)
            do = fault.do if fault else None
            if do == "stall":
                hub.over.wait()
            if do == "drop" or hub.over.is_set():
                self.close_connection = True
            elif fault and do == "status":
                self.reply((fault.status, fault.headers, b"{}"))
            else:
                answer = _cdn(hub, self) if side == "cdn" else _hub(hub, self, body)
                self.reply(answer, cut=do in ("cut", "reset"), reset=do == "reset")

        do_HEAD = do_POST = do_GET  # noqa: N815 - as the server looks for them

        def reply(self, answer: Answer, cut: bool = False, reset: bool = False) -> None:
            status, headers, body = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut
            if reset:  # to linger for no time is to end with a reset
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    return Handler


def _cdn(hub: Hub, asked: BaseHTTPRequestHandler) -> Answer:
    """A large file, or the range of it that is asked for."""
    if asked.headers.get("Authorization"):
        return 400, {}, b"the token must not come here"
    wanted = asked.path.rpartition("/")[2]
    contents = (each for repo in hub.repos.values() for each in repo.commits.values())
    body = next(b for files in contents for b in files.values() if sha256(b).hexdigest() == wanted)
    return _ranged(asked, body, {})


def _ranged(asked: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str]) -> Answer:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range", ""))
    if not found:
        return 200, headers, body
    start, stop = int(found[1]), int(found[2] or len(body) - 1) + 1
    part = body[start:stop]
    if not part:
        return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
    place = f"bytes {start}-{start + len(part) - 1}/{len(body)}"
    return 206, headers | {"Content-Range": place}, part


def _hub(hub: Hub, asked: BaseHTTPRequestHandler, content: bytes) -> Answer:
    """What the hub's own address answers."""
    url = urlsplit(asked.path)
    token = asked.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if token and token not in hub.tokens:
        return _refused(401, "", "Invalid credentials in Authorization header")
    if url.path == "/api/whoami-v2":
        name = {"type": "user", "name": "tester", "orgs": [], "auth": {"type": "access_token"}}
        return _json(name) if token else _refused(401, "", "Invalid username or password.")
    is_file = _FILE.fullmatch(url.path)
    found = is_file or _INFO.fullmatch(url.path)
    if not found:
        return _refused(404, "", "Sorry, we can't find the page you are looking for.")
    asks = found.groupdict()
    prefix = "datasets/" if asks["kind"] == "datasets" else ""
    repo = hub.repos.get(prefix + asks["name"])
    if repo and repo.moved_to:
        return 307, {"Location": asked.path.replace(asks["name"], repo.moved_to, 1)}, b""
    may = repo and (token in repo.known or not repo.private)
    if not repo or not may:
        return _refused(404 if token else 401, "RepoNotFound", "Repository not found")
    if is_file and repo.gated and token not in repo.known:
        return _refused(403 if token else 401, "GatedRepo", f"Access to {asks['name']} is gated.")
    if asks.get("verb") == "refs":
        refs = [
            {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.refs.items()
        ]
        return _json({"branches": refs, "tags": [], "converts": []})
    revision = unquote(asks["revision"] or "main")
    commit = repo.refs.get(revision, revision)
    if commit not in repo.commits:
        return _refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    files, below = repo.commits[commit], unquote(asks["below"] or "")
    if is_file:
        return _file(hub, asked, commit, files, below)
    if asks["verb"] == "tree":
        return _tree(asked, files, below)
    if asks["verb"] == "paths-info":
        paths = [p for p in parse_qs(content.decode()).get("paths", []) if p in files]
        return _json([_entry(path, files[path]) for path in paths])
    info = {"id": asks["name"], "sha": commit, "private": repo.private, "gated": repo.gated}
    info |= {"tags": [], "lastModified": "2026-01-01T00:00:00.000Z"}
    siblings = [
        {"rfilename": path, "blobId": _blob(body)} | _entry(path, body)
        for path, body in files.items()
    ]
    return _json(info | {"siblings": siblings})


def _file(hub: Hub, asked: BaseHTTPRequestHandler, commit: str, files: Files, path: str) -> Answer:
    headers = {"X-Repo-Commit": commit}
    if path not in files:
        status, more, body = _refused(404, "EntryNotFound", "Entry not found")
        return status, more | headers, body
    body = files[path]
    headers |= {"ETag": f'"{_blob(body)}"', "Accept-Ranges": "bytes"}
    if not path.endswith(_LARGE):
        return _ranged(asked, body, headers)
    digest = sha256(body).hexdigest()
    linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(body))}
    return 302, headers | linked | {"Location": f"{hub.cdn}/{digest}"}, b""


def _tree(asked: BaseHTTPRequestHandler, files: Files, below: str) -> Answer:
    """The entries of a folder."""
    query = parse_qs(urlsplit(asked.path).query)
    recursive = query.get("recursive", [""])[0].lower() in ("1", "true")
    start = f"{below}/" if below else ""
    entries = {}
    for path in (each for each in files if each.startswith(start)):
        parts = path[len(start) :].split("/")
        for depth in range(1, len(parts)):
            folder = start + "/".join(parts[:depth])
            entries[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
        entries[path] = _entry(path, files[path])
    shown = [e for path, e in sorted(entries.items()) if recursive or "/" not in path[len(start) :]]
    if below and not shown:
        return _refused(404, "EntryNotFound", f"{below} does not exist")
    return _json(shown)


def _entry(path: str, body: bytes) -> dict[str, Any]:
    entry = {"type": "file", "oid": _blob(body), "size": len(body), "path": path}
    if path.endswith(_LARGE):
        digest = sha256(body).hexdigest()
        entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(body), "pointerSize": 130}
    return entry


def _blob(body: bytes) -> str:
    """The name that git has for a file's content."""
    return sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _json(value: Any) -> Answer:
    return 200, {"Content-Type": "application/json; charset=utf-8"}, orjson.dumps(value)


def _refused(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return status, headers, orjson.dumps({"error": message})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which the client libraries ask: here and in processes that a test starts."""
    made, home = Hub(), tmp_path / "hf-home"
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    seconds = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
    for name, value in {"HF_ENDPOINT": made.url, "HF_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    files = made.url + "/{repo_id}/resolve/{revision}/{filename}"
    places = {"HF_HUB_CACHE": str(home / "hub"), "HF_TOKEN_PATH": str(home / "token")}
    places |= {"ENDPOINT": made.url, "HUGGINGFACE_CO_URL_TEMPLATE": files}
    for name, value in places.items():  # what it read from the environment when it was imported
        monkeypatch.setattr(constants, name, value)
    for name in seconds:
        monkeypatch.setenv(name, "1")
        monkeypatch.setattr(constants, name, 1)
    close_session()
    yield made
    made.close()
    close_session()
