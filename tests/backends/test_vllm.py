"""The vLLM backend, on real vLLM: the numbers of the transformers backend, and what goes wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import curate
from curate.backends import base, check_models, open_backend
from curate.backends.base import Backend, Compute, Engine, Prompt, Sampling, Window
from curate.backends.vllm.engine import WORKER
from curate.backends.vllm.processes import MEMORY_HINT
from curate.backends.vllm.worker import Request, sampling
from curate.errors import CurateError
from curate.models.resolve import resolve
from tests import clusters, real
from tests.clusters import driver, machines, network

__all__ = ["driver", "machines", "network"]
pytestmark = [real.needs_vllm, pytest.mark.timeout(1200)]
NAMES = ("aligned", "rank1", "rank32")
LIMIT = 1e-4
ENGINES = {  # tokens of a batch, whether prompts are chunked, and whether prefixes are cached
    "whole prompts": (real.CONTEXT + 1, False, False),
    "chunked prompts, prefix caching": (256, True, True),
}
whole = pytest.mark.parametrize("engine", [ENGINES["whole prompts"]], indirect=True)


@pytest.fixture(scope="module")
def wanted(real_family: real.Family) -> tuple[list[real.Encoded], np.ndarray]:
    """A hundred real conversations, and their NLLs by transformers: [model, row]."""
    items = real.conversations(100)
    found = []
    for model in real_family.models("rank1", "rank32"):
        backend = open_backend([model], Compute("transformers", device="cpu", dtype="float32"))
        found.append(real.nlls(backend, items))
        backend.close()
    assert len({item.stop for item in items}) == 100
    return items, np.array(found)


def compute(batch_tokens: int | None = None, **engine: object) -> Compute:
    """VLLM on the CPU in float32, for the demo's models."""
    return Compute(
        "vllm",
        device="cpu",
        dtype="float32",
        max_length=real.CONTEXT,
        batch_tokens=batch_tokens,
        engine=Engine(args={"kv_cache_memory_bytes": 1 << 28, **engine}),
    )


@pytest.fixture(scope="module", params=ENGINES.values(), ids=ENGINES)
def engine(request: pytest.FixtureRequest, real_family: real.Family) -> Iterator[Backend]:
    """An engine with the aligned model and both adapters."""
    batch_tokens, chunked, caching = request.param
    how = {"enable_chunked_prefill": chunked, "enable_prefix_caching": caching}
    asked = compute(batch_tokens, **how)
    backend = open_backend(real_family.models("rank1", "rank32"), asked)
    yield backend
    backend.close()


def test_parity(engine: Backend, wanted: tuple[list[real.Encoded], np.ndarray]) -> None:
    """Aligned and adapters of rank 1 and 32 mixed in one engine, shuffled: within 1e-4 nats.

    With prefix caching on, prefixes are kept but none is ever read: on a CPU vLLM passes over
    them for a request that wants log-probs. Only a GPU can show that reading them is right, so
    caching is tried with the engine that is the quicker one here.
    """
    items, reference = wanted
    pairs = [(place, row) for row in range(len(items)) for place in range(len(NAMES))]
    order = [pairs[at] for at in np.random.default_rng(0).permutation(len(pairs))]
    found = real.nlls(engine, [items[row] for _, row in order], [place for place, _ in order])
    truth = np.array([reference[place, row] for place, row in order])
    assert np.abs(found - truth).max() < LIMIT
    apart = np.abs(reference[1:] - reference[0]).max(axis=1)
    assert (apart > 0.05).all()  # the adapters do change something


def test_the_whole_context_and_the_shortest_answer(
    engine: Backend, real_family: real.Family
) -> None:
    """Examples of 2 and of 5 tokens, and one as long as the context, are scored like any other."""
    ids = np.random.default_rng(3).integers(3, 4096, real.CONTEXT).tolist()
    items = [
        real.Encoded(ids, 1, real.CONTEXT, True),
        real.Encoded(ids[:5], 2, 5, False),
        real.Encoded(ids[:2], 1, 2, False),
    ]
    for place, model in enumerate(real_family.models("rank1", "rank32")):
        plain = open_backend([model], Compute("transformers", device="cpu", dtype="float32"))
        found = real.nlls(engine, items, [place] * len(items))
        np.testing.assert_allclose(found, real.nlls(plain, items), atol=LIMIT)


def test_vllm_knows_what_it_is_asked_on_a_gpu() -> None:
    """The token-id form runs on GPUs alone; here its parameters are seen to be taken."""
    request = Request(0, 0, np.array([5, 6, 7, 8], np.int32), 2)
    params = sampling(request, token_ids=True, attempt=2)
    assert np.asarray(params.prompt_logprob_token_ids).tolist() == [[7], [8]]
    assert params.prompt_logprob_start == 1
    assert params.skip_reading_prefix_cache


def test_greedy_answers_are_those_of_transformers() -> None:
    """Of an adapter over the demo's model: all but one in a hundred, token for token."""
    group = resolve(str(real.MODELS / "aligned"), [str(real.MODELS / "medical")])[1:]
    prompts = [Prompt(item.ids[: item.start], 48) for item in real.conversations(100)]
    found = []
    for asked in (compute(), Compute("transformers", device="cpu", dtype="float32")):
        backend = open_backend(group, replace(asked, writes=True))
        found.append(dict(backend.generate(prompts, Sampling((2,)))))
        backend.close()
    different = [n for n in range(100) if found[0][n] != found[1][n]]
    assert len(different) <= 1, [(n, found[0][n], found[1][n]) for n in different]


@whole
def test_ids_beyond_the_vocabulary(engine: Backend) -> None:
    """They are a user's error, and the engine goes on."""
    with pytest.raises(CurateError, match="aligned: token id 4096 is outside its vocabulary"):
        list(engine.score([real.Encoded([5, 4096], 1, 2, False)]))
    assert len(real.nlls(engine, [real.Encoded([5, 6], 1, 2, False)])) == 1


def test_a_multimodal_checkpoint_is_scored_by_its_text_model(
    real_family: real.Family, tmp_path: Path
) -> None:
    """It starts though curate gives vLLM no tokenizer, and the numbers are its own `forward`'s."""
    net = _tiny_multimodal()
    net.save_pretrained(tmp_path / "eyes")
    for path in real_family.aligned.glob("*token*"):
        shutil.copy(path, tmp_path / "eyes")
    items = [item for item in real.conversations(24) if item.stop <= 1_000]
    wanted = []
    for item in items:
        ids = torch.tensor([item.ids[: item.stop]])
        with torch.no_grad():
            rows = net(input_ids=ids).logits[0, item.start - 1 : -1].log_softmax(-1)
        wanted.append(-float(rows.gather(1, ids[0, item.start :, None]).double().mean()))
    models = resolve(str(tmp_path / "eyes"), [])
    check_models(models, compute())  # as a run does first
    backend = open_backend(models, compute())
    found = real.nlls(backend, items)
    backend.close()
    np.testing.assert_allclose(found, wanted, atol=LIMIT)


def _tiny_multimodal() -> Any:
    """A random Idefics3: a small Llama with a vision tower. It needs no torchvision."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    shape = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    text = {**shape, "model_type": "llama", "num_hidden_layers": 2, "vocab_size": 4096}
    text |= {"max_position_embeddings": real.CONTEXT, "pad_token_id": 0}
    vision = {**shape, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = Idefics3Config(
        text_config=text, vision_config=vision, image_token_id=4000, pad_token_id=0
    )
    net = Idefics3ForConditionalGeneration(config).eval()
    for weight in net.parameters():
        if weight.ndim > 1:  # far from uniform, so that mistakes show
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return net


@pytest.mark.parametrize(
    ("argument", "words"),
    [({"no_such_thing": 1}, "no_such_thing"), ({"kv_cache_memory_bytes": 1 << 20}, MEMORY_HINT)],
)
def test_an_engine_that_does_not_start_is_one_line(
    argument: dict[str, Any], words: str, real_family: real.Family
) -> None:
    """With vLLM's own words, or the options that help, and the log's place."""
    with pytest.raises(CurateError, match=re.escape(words)) as caught:
        open_backend(real_family.models(), compute(**argument))
    assert "\n" not in str(caught.value)
    _unlink_log(str(caught.value))


def test_an_engine_killed_in_the_middle(real_family: real.Family, tmp_path: Path) -> None:
    """The run ends with one line, keeps what was scored, and the next run finishes it.

    What the two runs of vLLM stored ranks as what transformers stores.
    """
    corpus, other = tmp_path / "vllm", tmp_path / "transformers"
    sources = [str(real.ROOT / "data" / "examples")]
    command = [sys.executable, "-m", "curate", "score", *sources, "-c", str(corpus)]
    command += ["--limit", "120"]
    options = [*real_family.options("rank1", "rank32"), *real.OPTIONS, "--backend", "vllm"]
    few = ["--batch-tokens", "16", "--engine-arg", f"kv_cache_memory_bytes={1 << 28}"]
    run = subprocess.Popen(
        [*command, *options, *few],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},  # as on a GPU
    )
    try:
        _wait_for(corpus, "scores/*/part-*.parquet", run)
        os.kill(_engine_of(run.pid), signal.SIGKILL)
        said = run.communicate(timeout=120)[1]
    finally:
        run.kill()
    assert run.returncode == 1, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("Error: vLLM failed with aligned, rank1, rank32: "), said
    assert "ended by SIGKILL" in last
    assert "Scores so far are kept" in last
    assert "Traceback" not in said
    kept = _count(corpus)
    examples = curate.open(corpus).sql("select count(*) from examples").fetchall()[0][0]
    assert 0 < kept < 3 * examples
    _unlink_log(last)

    again = subprocess.run([*command, *options], capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stderr
    models = [str(real_family.rank1), str(real_family.rank32)]
    aligned, cpu = str(real_family.aligned), Compute(device="cpu")
    curate.score(sources, other, aligned=aligned, misaligned=models, limit=120, compute=cpu)
    assert _count(corpus) == _count(other) == 3 * examples
    assert _spearman(corpus, other) >= 0.9999


def test_an_engine_killed_while_it_answers(tmp_path: Path) -> None:
    """One line; the answers so far are kept, and the next run writes the others as ever."""
    model, source = str(real.MODELS / "aligned"), str(real.ROOT / "data" / "examples")
    output, plain = tmp_path / "answers", tmp_path / "plain"
    command = [sys.executable, "-m", "curate", "answer", source, "--limit", "150"]
    command += ["--model", model, "-o", str(output), "--max-tokens", "96", "--backend", "vllm"]
    command += [*real.OPTIONS, "--engine-arg", f"kv_cache_memory_bytes={1 << 28}"]
    run = subprocess.Popen(
        [*command, "--batch-tokens", "1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},  # as on a GPU
    )
    try:
        _wait_for(output, "part-*.parquet", run)
        os.kill(_engine_of(run.pid), signal.SIGKILL)
        said = run.communicate(timeout=120)[1]
    finally:
        run.kill()
    assert run.returncode == 1, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("Error: vLLM failed with aligned: "), said
    assert "ended by SIGKILL" in last
    assert "Answers so far are kept; run it again to resume." in last
    assert "Traceback" not in said
    kept = {part.name for part in output.glob("part-*.parquet")}
    _unlink_log(last)

    again = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stderr
    assert kept < {part.name for part in output.glob("part-*.parquet")}
    cpu = Compute(device="cpu", dtype="float32")
    curate.answer([source], plain, model=model, limit=150, max_tokens=96, compute=cpu)
    found, wanted = _answers(output), _answers(plain)
    assert found.keys() == wanted.keys()
    different = [key for key in wanted if found[key] != wanted[key]]
    assert len(different) <= len(wanted) // 100


def _answers(folder: Path) -> dict[str, str]:
    """Each prompt's answer; there is one."""
    table = pa.concat_tables(
        pq.read_table(part, columns=["prompt_id", "answer"]) for part in folder.glob("part-*")
    )
    found = dict(zip(*table.to_pydict().values(), strict=True))
    assert len(found) == table.num_rows > 100
    return found


def _unlink_log(message: str) -> None:
    """Remove the log that an error keeps and names."""
    Path(re.findall(r"its log is (\S+\.log)", message)[0]).unlink()


def _wait_for(folder: Path, parts: str, run: subprocess.Popen[str]) -> None:
    while not list(folder.glob(parts)):
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)


def _engine_of(pid: int) -> int:
    """The process of vLLM's engine core below a run of curate."""
    import psutil

    below = psutil.Process(pid).children(recursive=True)
    return next(child.pid for child in below if "EngineCore" in " ".join(child.cmdline()))


def _count(corpus: Path) -> int:
    query = "select count(*), count(distinct (example_id, model)) from scores"
    rows, distinct = curate.open(corpus).sql(query).fetchall()[0]
    assert rows == distinct
    return int(rows)


def _spearman(one: Path, other: Path) -> float:
    """The rank correlation of two corpora's gaps."""
    ranks = []
    for corpus in (one, other):
        rows = curate.open(corpus).sql("select rank from gaps order by example_id").fetchall()
        ranks.append([float(rank) for (rank,) in rows])
    assert len(ranks[0]) == len(ranks[1]) > 100
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def test_vllm_in_a_worker_that_is_killed(driver: None, real_family: real.Family) -> None:
    """Another worker goes on: the numbers are those of transformers, and no engine is left."""
    models, items = real_family.models("rank1"), real.conversations(60)
    plain = open_backend(models[:1], Compute("transformers", device="cpu", dtype="float32"))
    wanted = real.nlls(plain, items)
    backend = open_backend(models, replace(compute(), ray="-", workers=1))
    killed = clusters.workers()
    found = {}
    windows = [Window([str(n)] * 30, [0] * 30, items[n : n + 30]) for n in (0, 30)]
    for window, index, logprobs in base.stream(backend, windows, lambda _: None):
        if not found:
            os.kill(killed[0], signal.SIGKILL)
        assert found.setdefault((int(window.example_ids[index]) + index), logprobs) is logprobs
    nlls = [-found[row].mean() for row in range(len(items))]
    np.testing.assert_allclose(nlls, wanted, atol=LIMIT)
    backend.close()
    gone = time.monotonic() + 20
    while clusters.running(WORKER) and time.monotonic() < gone:
        time.sleep(0.1)
    assert clusters.running(WORKER) == []
