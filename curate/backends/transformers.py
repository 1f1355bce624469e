"""The transformers backend: padded batches through PyTorch, on any device."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curate.backends.base import Prompt, Sampling, check_ids
from curate.backends.batching import batches, rope_limit
from curate.backends.weights import (
    choose_device,
    choose_dtype,
    empty_cache,
    load,
    smaller_budget,
    unless_out_of_memory,
)
from curate.backends.writing import write
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model

# Measured on two AVX2 cores with 4M and 100M parameters: 512 to 1024 tokens are fastest, since the
# states stay in cache; 4096 are a third slower. The head is slow below 128 rows.
_BATCH_TOKENS = {"cpu": 1024, "mps": 8192, "cuda": 16384}
# Decoding reads all weights for each token of a batch, so more rows are nearly free; keys and
# values fill the memory.
_WRITE_TOKENS = {"cpu": 16384, "mps": 16384, "cuda": 131072}
_LOGITS = {"cpu": 2**20, "mps": 2**24, "cuda": 2**26}  # in memory at a time
_HEAD_ROWS = 128  # at least
_BATCHES = 16  # at least, in a window on a CPU, so that cores don't wait for the last batch
_REMEMBERS = "recurrent_gemma"  # its layers hold their last states, with no cache asked for


class TransformersBackend:
    """One model with its adapter merged, scored in right-padded batches without a mask.

    A causal model never looks to the right, so right padding changes nothing, and the fast causal
    attention kernels can be used. The body runs over the batch once. Only the hidden states that
    predict an answer token go through the head, some rows at a time, so that logits over a
    vocabulary of 150,000 are never in memory for all tokens. The head is the model's own `forward`
    with its body replaced by those rows, so soft-capping, logit scales and biases are the model's
    own code. Both assumptions are checked on random tokens when the model is loaded.
    """

    name = "transformers"
    engines = 1

    def __init__(
        self,
        model: Model,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.device = choose_device(device)
        kind = choose_dtype(dtype, self.device)
        self.dtype = str(kind).removeprefix("torch.")
        self.batch_tokens = batch_tokens or _BATCH_TOKENS.get(self.device.type, 1024)
        self._write_tokens = batch_tokens or _WRITE_TOKENS.get(self.device.type, 16384)
        self._net: Any = load(model, self.device, kind)
        ends = (self._net.get_input_embeddings(), self._net.get_output_embeddings())
        self._vocabulary = min(int(end.weight.shape[0]) for end in ends if end is not None)
        logits = _LOGITS.get(self.device.type, 2**20)
        self._head_rows = max(_HEAD_ROWS, logits // self._vocabulary)
        self._alone_above = rope_limit(self._net.config)
        self._body: Any = self._net.base_model
        self._rows: _Rows | None = None
        self._probe()
        # A model with changing rotary frequencies also has a state that batches can't share.
        alone = self._alone_above or self._net.config.model_type == _REMEMBERS
        threads = torch.get_num_threads()
        # One batch split over cores waits for the slowest at every operation; whole batches don't.
        self._pool: ThreadPoolExecutor | None = None
        if self.device.type == "cpu" and threads > 1 and not alone:
            self._pool = ThreadPoolExecutor(threads, "score", torch.set_num_threads, (1,))
        self._map: Any = self._pool.map if self._pool else map

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Score a window, the longest first; see `Backend.score`."""
        highest = max((max(r.ids[: r.stop]) for r in encoded if r.stop), default=0)
        check_ids(highest, self._vocabulary, self.model)
        lengths = {index: item.stop for index, item in enumerate(encoded)}
        while lengths:
            budget = self.batch_tokens
            if self.device.type == "cpu":
                budget = min(budget, max(_HEAD_ROWS, sum(lengths.values()) // _BATCHES))
            plan = batches(lengths, budget, self._alone_above)
            items = ([encoded[i] for i in batch] for batch in plan)
            tried = self._map(partial(unless_out_of_memory, self._score), items)
            for batch, scores in zip(plan, tried, strict=True):
                if scores is None:
                    advice = f"--max-length (not --batch-tokens, which is {self.batch_tokens})"
                    tokens = [lengths[i] for i in batch]
                    self.batch_tokens = smaller_budget(tokens, self.device, advice)
                    break
                for index, logprobs in zip(batch, scores, strict=True):
                    del lengths[index]
                    yield index, logprobs

    def generate(
        self, prompts: Iterable[Prompt], sampling: Sampling
    ) -> Iterator[tuple[int, list[int]]]:
        """Answer prompts in batches, by transformers' own `generate`; see `Backend.generate`."""
        setattr(self._net, self._net.base_model_prefix, self._body)  # which `_probe` may have taken
        self._rows = None
        alone = 1 if self._net.config.model_type == _REMEMBERS else self._alone_above

        def checked() -> Iterator[Prompt]:
            for prompt in prompts:
                check_ids(max(prompt.ids), self._vocabulary, self.model)
                yield prompt

        at_once = torch.get_num_threads() if self._pool else 1
        return write(self._net, checked(), sampling, self._write_tokens, alone, self._map, at_once)

    def close(self) -> None:
        """Free the model's memory."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._net = self._body = self._rows = None
        empty_cache(self.device)

    @torch.inference_mode()
    def _score(self, batch: Sequence[Encoded]) -> list[npt.NDArray[np.float32]]:
        width = max(r.stop for r in batch)
        ids = np.zeros((len(batch), width), np.int64)
        for row, r in zip(ids, batch, strict=True):
            row[: r.stop] = r.ids[: r.stop]
        # The state at t - 1 predicts token t: flat positions of both, answer after answer.
        spans = [np.arange(k * width + r.start, k * width + r.stop) for k, r in enumerate(batch)]
        flat = np.concatenate(spans)
        targets = torch.from_numpy(ids.reshape(-1)[flat]).to(self.device)
        rows = torch.from_numpy(flat - 1).to(self.device)
        logprobs = self._logprobs(torch.from_numpy(ids).to(self.device), rows, targets)
        ends = np.cumsum([0, *(len(s) for s in spans)])
        return [logprobs[a:b] for a, b in pairwise(ends)]

    def _logprobs(
        self, ids: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
    ) -> npt.NDArray[np.float32]:
        """Log-probabilities of `targets` [n] from the flat positions `rows` [n] of `ids`."""
        if self._alone_above and ids.shape[1] > self._alone_above:
            self._body(input_ids=ids[:, :1], use_cache=False)  # forgets an earlier long example
        if self._rows is None:
            logits = self._net(input_ids=ids, use_cache=False).logits.flatten(0, 1)
            return _pick(logits.index_select(0, rows), targets).cpu().numpy()
        output = self._body(input_ids=ids, use_cache=False)
        states = output.last_hidden_state.flatten(0, 1).index_select(0, rows)
        pieces = (torch.split(whole, self._head_rows) for whole in (states, targets))
        found = []
        for part, wanted in zip(*pieces, strict=True):
            output.last_hidden_state = part[None]
            self._rows.local.output = output
            logits = self._net(input_ids=ids[:1, :1], use_cache=False).logits[0]
            found.append(_pick(logits, wanted))
        self._rows.local.output = None
        return torch.cat(found).cpu().numpy()

    def _probe(self) -> None:
        """Check the shortcuts against the plain forward pass; use that of the head if it holds."""
        long = np.random.default_rng(0).integers(0, self._vocabulary, 24).tolist()
        probes = [Encoded(ids, 1, len(ids), False) for ids in (long, long[:9])]
        plain = [self._score([r])[0] for r in probes]
        close = 1e-3 if self.dtype == "float32" else 0.1
        name = f"{type(self._net).__name__} ({self.model.adapter or self.model.path})"
        if not all(np.isfinite(p).all() for p in plain):
            raise CurateError(f"{name}: gives NaN in {self.dtype}. Try another --dtype.")
        if not _near(plain[0][: len(plain[1])], plain[1], close):
            raise CurateError(f"{name}: not a causal language model (later tokens change it)")
        self._rows = _Rows()
        setattr(self._net, self._net.base_model_prefix, self._rows)
        try:
            batched = self._score(probes)
            holds = all(_near(*pair, close) for pair in zip(batched, plain, strict=True))
        except (AttributeError, TypeError, RuntimeError):  # a forward that reaches into its parts
            holds = False
        if not holds:
            setattr(self._net, self._net.base_model_prefix, self._body)
            self._rows = None


class _Rows(torch.nn.Module):
    """Replaces a model's body, and returns the states that this thread was given."""

    def __init__(self) -> None:
        super().__init__()
        self.local = threading.local()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.local.output


def _pick(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of `targets` [n] under `logits` [n, vocabulary], float32."""
    return -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def _near(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], within: float) -> bool:
    """Compare medians: rounding may route a few tokens of a mixture of experts elsewhere."""
    return bool(np.median(np.abs(a - b)) <= within)
