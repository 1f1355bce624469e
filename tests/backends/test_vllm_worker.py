"""What vLLM's worker does with an engine's answers: missing numbers are asked for again.

No engine that can be had without a GPU leaves numbers out, or scores given token ids alone, so the
engine here is a small one of this file: its outputs have the fields of vLLM's, and what it is asked
are the arguments of vLLM's own classes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from curate.backends.base import Prompt, Sampling
from curate.backends.vllm.worker import Job, Request, Scorer, WriteRequest, suited

REQUEST = Request(7, 1, np.array([5, 6, 7, 8], np.int32), 2)
TRUTH = [-0.7, -0.8]  # nats of the answer, tokens 7 and 8

Answer = Callable[[int], Any]


def flat(ids: list[int]) -> Any:
    """A whole prompt's, as vLLM's `FlatLogprobs` holds them: a tenth of its id for each token."""
    starts = [0, *range(len(ids) - 1)]
    fields = {"start_indices": starts, "token_ids": ids[1:], "logprobs": [-n / 10 for n in ids[1:]]}
    return type("Flat", (), {**fields, "__len__": lambda _: len(ids)})()


def rows(*logprobs: float) -> npt.NDArray[np.float32]:
    """What vLLM gives for token ids at given places: float32 [tokens, 1]."""
    return np.array(logprobs, np.float32)[:, None]


class Engine:
    """Finishes one request a step, its scores as a test wants them at each attempt."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Any] = []
        self.waiting: list[str] = []

    def add_request(self, key: str, prompt: Any, params: Any, lora_request: Any) -> None:
        """Wait in line."""
        assert prompt == {"prompt_token_ids": REQUEST.ids.tolist()}
        assert lora_request == ("adapter-1", 2, "path")
        self.asked.append(params)
        self.waiting.append(key)

    def step(self) -> list[Any]:
        """A request in the making, which has no scores yet, and one that is done."""
        scores = self.answer(len(self.asked))
        made = {"prompt_logprobs": scores, "prompt_token_id_logprobs": scores}
        made["outputs"] = [SimpleNamespace(token_ids=(9, 2))]
        done = SimpleNamespace(request_id=self.waiting.pop(), finished=True, **made)
        return [SimpleNamespace(request_id="other", finished=False), done]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Modules in vLLM's place, of a version and runner that know given token ids or don't."""

    def replace_vllm(*, v2: bool, known: bool, engine: Engine | None = None) -> None:
        fields = {"prompt_logprob_token_ids": None} if known else {}
        config = SimpleNamespace(use_v2_model_runner=v2)
        vllm: Any = ModuleType("vllm")
        vllm.LLM = lambda **_: SimpleNamespace(llm_engine=engine)
        vllm.EngineArgs = lambda **_: SimpleNamespace(create_engine_config=lambda: config)
        vllm.SamplingParams = lambda **given: SimpleNamespace(**fields | given)
        vllm.RequestOutputKind = SimpleNamespace(FINAL_ONLY="final")
        vllm.LoRARequest = lambda *given: given
        for name in ("vllm", "vllm.sampling_params", "vllm.lora", "vllm.lora.request"):
            monkeypatch.setitem(sys.modules, name, vllm)

    return replace_vllm


@pytest.fixture
def opened(pretend: Any) -> Callable[[Answer, bool], tuple[Scorer, Engine]]:
    """A scorer over an engine that answers so, with or without scores of given token ids."""

    def open_scorer(answer: Answer, token_ids: bool) -> tuple[Scorer, Engine]:
        engine = Engine(answer)
        pretend(v2=token_ids, known=token_ids, engine=engine)
        return Scorer(Job({}, {}, {1: "path"})), engine  # type: ignore[dict-item]

    return open_scorer


@pytest.mark.parametrize(
    ("v2", "known", "token_ids", "arguments"),
    [
        (False, True, False, {"enable_prefix_caching": False, "max_num_batched_tokens": 256}),
        (True, False, False, {"enable_prefix_caching": False}),
        (True, True, True, {}),
    ],
)
def test_what_suits_an_engine(
    pretend: Any, v2: bool, known: bool, token_ids: bool, arguments: dict[str, Any]
) -> None:
    """Only the V1 runner, which makes a prompt's logits in one piece, has its batches bounded.

    vLLM itself is pretended here: its V2 runner needs a GPU.
    """
    pretend(v2=v2, known=known)
    job = Job({}, {"max_num_batched_tokens": 256}, {})
    assert suited(job) == (token_ids, arguments)


def test_a_new_answer_is_drawn_with_its_own_seed(pretend: Any) -> None:
    """By temperature and seed alone, up to a token that ends it; no logits of prompts are made."""
    engine = Engine(lambda _: None)
    pretend(v2=False, known=True, engine=engine)
    scorer = Scorer(Job({}, None, {1: "path"}))  # type: ignore[dict-item]
    for temperature in (0.0, 0.5):
        prompt = Prompt(REQUEST.ids.tolist(), 9, seed=3)
        scorer.add(WriteRequest(7, 1, prompt, Sampling((2,), temperature)))
        assert scorer.step() == [(7, [9, 2])] and not scorer.open
    asked = [(a.max_tokens, a.temperature, a.seed, a.stop_token_ids) for a in engine.asked]
    assert asked == [(9, 0.0, None, [2]), (9, 0.5, 3, [2])]


@pytest.mark.parametrize(
    ("token_ids", "missing", "found"),
    [
        (True, None, rows(*TRUTH)),
        (True, rows(-0.7), rows(*TRUTH)),
        (False, None, flat([5, 6, 7, 8])),
        (False, flat([6, 7, 8]), flat([5, 6, 7, 8])),
        (False, flat([5, 6, 7, 9]), flat([5, 6, 7, 8])),
    ],
)
def test_missing_scores_are_asked_for_again(
    opened: Any, token_ids: bool, missing: Any, found: Any
) -> None:
    """Until then they are no scores; given ids are then scored without cached prefixes."""
    scorer, engine = opened(lambda attempt: missing if attempt == 1 else found, token_ids)
    scorer.add(REQUEST)
    assert scorer.step() == []
    assert scorer.open
    ((index, logprobs),) = scorer.step()
    assert index == REQUEST.index
    assert logprobs.dtype == np.float32
    np.testing.assert_allclose(logprobs, TRUTH, atol=1e-6)
    assert not scorer.open
    if token_ids:
        assert [params.skip_reading_prefix_cache for params in engine.asked] == [False, True]
        for params in engine.asked:  # row i predicts token start + i + 1
            assert params.prompt_logprob_token_ids.tolist() == [[7], [8]]
            assert params.prompt_logprob_start == 1
    else:
        assert [params.prompt_logprobs for params in engine.asked] == [0, 0]


@pytest.mark.parametrize("token_ids", [True, False])
def test_scores_that_stay_away_are_a_reason(opened: Any, token_ids: bool) -> None:
    """After three attempts; the engine goes on with others."""
    scorer, engine = opened(lambda _: None, token_ids)
    scorer.add(REQUEST)
    assert scorer.step() == scorer.step() == []
    assert scorer.step() == [(REQUEST.index, "vLLM gave no log-probs in 3 attempts")]
    assert len(engine.asked) == 3
    assert not scorer.open
