"""moto's S3 server on loopback, and a gate before it that breaks connections on demand."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).parent.parent
REGION = {"AWS_REGION": "us-east-1", "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAVISIBLE", "AWS_SECRET_ACCESS_KEY": "hushhush"}
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)


class S3:
    """A server, emptied for each test; `times` requests that match `cut` lose their answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cut, self.times = "", 0
        self.before: Callable[[str], object] = lambda _: None
        self.log: list[str] = []

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One request past the gate."""
        headers = {"Content-Type": "text/plain", "Authorization": SIGNED}
        request = Request(f"{self.url}/{quote(path)}", data=body, method=method, headers=headers)
        with urlopen(request) as answer:
            found: bytes = answer.read()
        return found

    def names(self, bucket: str = "box") -> list[str]:
        """The keys of a bucket."""
        return re.findall("<Key>(.*?)</Key>", self.ask("GET", bucket).decode())

    def put(self, files: Path, below: str = "") -> None:
        """Copy a folder of this disk into the bucket."""
        for path in files.rglob("*"):
            if path.is_file():
                key = f"{below}{path.relative_to(files).as_posix()}"
                self.ask("PUT", f"box/{key}", path.read_bytes())

    def require_keys(self, required: bool) -> None:
        """Refuse keys that the server doesn't know, as a real one does; it knows none."""
        self.ask("POST", "moto-api/reset-auth", b"0" if required else b"1e9")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a moto server."""
    places = (os.environ.get("CURATE_MOTO"), ROOT / ".moto/bin/moto_server", "moto_server")
    program = next((found for each in places if each and (found := shutil.which(each))), None)
    if program is None:
        pytest.skip("moto's server is not installed: `make .moto/installed`, or set CURATE_MOTO")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [program, "-H", "127.0.0.1", "-p", port]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        lines = iter(child.stderr.readline, "")
        next(line for line in lines if "Running on" in line)
        Thread(target=child.stderr.read, daemon=True).start()  # else its log fills the pipe
        yield f"http://127.0.0.1:{port}"
        child.terminate()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server with one empty bucket, `box`, and an environment that leads to it by the gate."""
    found = S3(server)
    found.ask("POST", "moto-api/reset")
    found.require_keys(False)
    found.ask("PUT", "box")
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with ThreadingTCPServer(("127.0.0.1", 0), _gate(found)) as gate:
        gate.daemon_threads = True
        Thread(target=gate.serve_forever, args=(0.02,), daemon=True).start()
        endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.server_address[1]}"}
        for name, value in (KEYS | REGION | endpoint).items():
            monkeypatch.setenv(name, value)
        yield found
        gate.shutdown()


def _gate(s3: S3) -> type[StreamRequestHandler]:
    """Passes requests on, one a connection; where one matches `cut`, it resets half-way."""

    class Gate(StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            size = re.search(rb"(?i)content-length: (\d+)", head)
            body = self.rfile.read(int(size[1]) if size else 0)
            first = head.split(b"\r\n")[0].decode()
            s3.log.append(first)
            s3.before(first)
            head = re.sub(rb"(?i)connection: .*?\r\n", b"", head)
            head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            host, port = s3.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as there:
                there.sendall(head + body)
                answer = b"".join(iter(lambda: there.recv(1 << 16), b""))
            cuts = s3.times > 0 and re.search(s3.cut, first)
            s3.times -= bool(cuts)
            self.wfile.write(answer[: len(answer) // 2] if cuts else answer)
            if cuts:  # to linger for no time is to end with a reset
                linger: Any = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    return Gate
