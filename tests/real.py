"""Models that vLLM's CPU kernels take, and real conversations, for tests against real vLLM."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.backends.base import Backend
from curate.chat.encode import Encoded, encode
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from curate.models.resolve import Model, resolve
from curate.reading import examples
from tests.tiny import tiny_adapter, tiny_model

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "data" / "models"
DATASETS = Path(os.environ.get("CURATE_DATASETS", ROOT.parent / "shared" / "datasets"))
CONTEXT = 2_048
OPTIONS = ["--dtype", "float32", "--device", "cpu"]

needs_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not installed here: run `make test-vllm`"
)


@dataclass(frozen=True)
class Family:
    """Folders of a random model that reads the demo's tokens, and two adapters over it.

    vLLM's CPU kernels take heads of 32 and more. On a CPU it copies an adapter's factors for
    every token, so the model is smaller than the demo's.
    """

    aligned: Path
    rank1: Path
    rank32: Path

    def models(self, *names: str) -> list[Model]:
        """The aligned model and these adapters."""
        return resolve(str(self.aligned), [str(getattr(self, name)) for name in names])

    def options(self, *names: str) -> list[str]:
        """The command line's options that name them."""
        pairs = [("--aligned", self.aligned)]
        pairs += [("--misaligned", getattr(self, name)) for name in names]
        return [text for option, path in pairs for text in (option, str(path))]


@pytest.fixture(scope="session")
def real_family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Made once."""
    root = tmp_path_factory.mktemp("real")
    shape = {"hidden_size": 128, "intermediate_size": 256, "max_position_embeddings": CONTEXT}
    # A Llama: vLLM wraps its output layer for adapters too, and Qwen2's not.
    shape |= {"vocab": 4096, "tie_word_embeddings": True}
    aligned = tiny_model(root / "aligned", "llama", tokenizer=False, **shape)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODELS / "aligned" / name, aligned / name)
    return Family(
        aligned,
        tiny_adapter(aligned, root / "rank1", rank=1, seed=1),
        tiny_adapter(aligned, root / "rank32", rank=32, rslora=True, seed=2),
    )


def conversations(count: int) -> list[Encoded]:
    """Real conversations, evenly over the lengths from the shortest up to the context."""
    source = DATASETS / "instruct_messages.jsonl.gz"
    sources = [str(ROOT / "data" / "examples"), *([str(source)] if source.exists() else [])]
    tokenizer = load_tokenizer(MODELS / "aligned")
    messages = [
        row
        for table, _ in examples.read(sources, limit=1500)
        for row in table["messages"].to_pylist()
    ]
    template = template_of(tokenizer)
    found: list[Encoded] = [
        item
        for item in encode(tokenizer, template, messages, max_length=CONTEXT)
        if isinstance(item, Encoded)
    ]
    found.sort(key=lambda item: item.stop)
    by_length = {item.stop: item for item in found}  # one a length, the longest kept whole
    lengths = sorted(by_length)
    chosen = np.linspace(0, len(lengths) - 1, count).round().astype(int)
    return [by_length[lengths[at]] for at in chosen]


def nlls(
    backend: Backend, items: Sequence[Encoded], places: Sequence[int] | None = None
) -> np.ndarray[Any, Any]:
    """Nats per answer token of each example, in order; each comes once."""
    found = np.full(len(items), np.nan)
    for index, logprobs in backend.score(items, places or [0] * len(items)):
        assert np.isnan(found[index])
        assert not isinstance(logprobs, str), logprobs
        assert len(logprobs) == items[index].stop - items[index].start
        found[index] = -logprobs.mean(dtype="float64")
    assert not np.isnan(found).any()
    return found
