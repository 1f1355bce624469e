"""HTTP servers that answer as vLLM does, or as a test wants them to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], tuple[int, Any]]


class Upstream:
    """A real HTTP server that answers as vLLM does, or as a test wants it to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.reply: Reply = lambda _: (200, None)
        self.models: list[dict[str, Any]] = [{"id": "chat", "max_model_len": 64}, {"id": "lora"}]
        self.starting: list[int] = []  # codes that come before the list of models does
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.keys.add(self.headers.get("Authorization"))
                code = upstream.starting.pop(0) if upstream.starting else 200
                self._send(code, {"data": upstream.models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                upstream.keys.add(self.headers.get("Authorization"))
                upstream.asked.append(body)
                code, answer = upstream.reply(body)
                self._send(code, answer if answer is not None else scores(body))

            def _send(self, code: int, answer: Any) -> None:
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                with suppress(OSError):  # who asked may be gone
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.http.shutdown()
        self.http.server_close()


def scores(body: dict[str, Any]) -> dict[str, Any]:
    """A response in vLLM's form: each token costs a hundredth of its id, more for the adapter."""
    factor = 0.02 if "lora" in body["model"] else 0.01
    rows: list[Any] = [None] + [
        {str(token): {"logprob": -factor * token, "rank": 1, "decoded_token": "x"}}
        for token in body["prompt"][1:]
    ]
    return {"choices": [{"prompt_logprobs": rows}]}
