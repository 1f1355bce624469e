"""Which adapters vLLM takes as they are, and which are merged: read from their files alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from curate.backends import Compute, Engine, choose, groups
from curate.backends.adapters import RANKS, kernel_rank, share_engines, why_merged
from curate.errors import CurateError
from curate.models import Model, resolve

PLAIN: dict[str, dict[str, Any]] = {
    "rank 1": {"rank": 1},
    "rsLoRA 32": {"rank": 32, "rslora": True},
    "one layer": {"target_modules": ["down_proj"], "layers_to_transform": [1]},
}
MERGED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "use_dora"),
    "bias": ({"bias": "all"}, "bias"),
    "ranks": ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    "alphas": ({"alpha_pattern": {"v_proj": 9}}, "alpha_pattern"),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
    "embeddings": ({"target_modules": ["q_proj", "embed_tokens"]}, "embed"),
    "saved head": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "pissa"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """Make an adapter over one tiny model, as a model of a run."""
    root = tmp_path_factory.mktemp("adapters")
    base = tiny.tiny_model(root / "base")
    known: dict[str, Model] = {}

    def make(name: str, adapter: dict[str, Any]) -> Model:
        if name not in known:
            settings = {"rank": 4, "target_modules": ["q_proj"], **adapter}
            folder = tiny.tiny_adapter(base, root / str(len(known)), **settings)
            known[name] = resolve(f"base={base}", [f"other={folder}"])[1]
        return known[name]

    return make


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_adapters_stay_adapters(kind: str, made: Callable[..., Model]) -> None:
    """LoRA and rsLoRA factors of inner linear layers are what vLLM scores rightly."""
    assert why_merged(made(kind, PLAIN[kind]), Engine()) is None


@pytest.mark.parametrize("kind", MERGED)
@pytest.mark.filterwarnings("ignore")
def test_odd_adapters_are_merged_with_a_reason(kind: str, made: Callable[..., Model]) -> None:
    """What vLLM refuses, or gets wrong without a word, is found before an engine starts."""
    settings, word = MERGED[kind]
    reason = why_merged(made(kind, settings), Engine())
    assert reason is not None
    assert word in reason


def test_an_adapter_on_weights_that_vllm_splits_up_is_merged(tmp_path: Path) -> None:
    """MLA's `kv_b_proj` is taken apart as weights: vLLM would drop the adapter without a word."""
    shape = {"kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    dense = {"first_k_dense_replace": 2, "q_lora_rank": 8}
    base = tiny.tiny_model(tmp_path / "base", "deepseek_v2", **shape, **dense)
    for target, reason in (("kv_b_proj", "it changes kv_b_proj"), ("q_b_proj", None)):
        folder = tiny.tiny_adapter(base, tmp_path / target, target_modules=[target])
        assert why_merged(resolve(str(base), [str(folder)])[1], Engine()) == reason


def test_another_kind_and_a_high_rank_are_merged(
    made: Callable[..., Model], tmp_path: Path
) -> None:
    """So are adapters that are not LoRA, and those above the highest rank or the user's."""
    model = made("rank 1", PLAIN["rank 1"])
    assert model.adapter is not None
    for change, word in (({"peft_type": "LOHA"}, "LOHA"), ({"r": 1024}, "1024 is above 512")):
        folder = tmp_path / word.split()[0]
        folder.mkdir()
        for file in model.adapter.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | change))
        odd = Model("odd", "misaligned", str(folder), model.path, folder, model.path, "")
        assert word in str(why_merged(odd, Engine()))
    wide = made("rsLoRA 32", PLAIN["rsLoRA 32"])
    assert "above 16" in str(why_merged(wide, Engine(max_lora_rank=16)))


@pytest.mark.parametrize(
    ("given", "rank"), [(None, 32), (1, 1), (8, 8), (100, 128), (512, 512), (4096, 512)]
)
def test_the_kernels_rank_fits_by_itself(
    given: int | None, rank: int, made: Callable[..., Model]
) -> None:
    """It is the smallest that vLLM has kernels for and that holds the largest adapter."""
    adapters = [made(kind, PLAIN[kind]).adapter for kind in ("rank 1", "rsLoRA 32")]
    found = kernel_rank([path for path in adapters if path], Engine(max_lora_rank=given))
    assert found == rank
    assert found in RANKS


def test_who_shares_an_engine(made: Callable[..., Model], tmp_path: Path) -> None:
    """The aligned model with the plain adapters; merged ones and full checkpoints alone."""
    plain = [made(kind, PLAIN[kind]) for kind in PLAIN]
    head = made("head", MERGED["head"][0])
    base = Model("base", "aligned", "b", plain[0].path, None, plain[0].path, "")
    full = Model("full", "misaligned", "f", tmp_path, None, tmp_path, "")
    order = [base, plain[0], head, plain[1], full, plain[2]]
    assert share_engines(order, Engine()) == [[base, *plain], [head], [full]]
    assert groups(order, Compute("transformers")) == [[model] for model in order]
    assert groups(order, Compute("server")) == [order]
    many = [base] + [plain[0]] * 100
    assert [len(group) for group in share_engines(many, Engine())] == [60, 41]


def test_auto_says_what_it_chose_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without vLLM or a GPU it is transformers; with a server's address it is that."""
    said: list[str] = []
    monkeypatch.setattr("curate.backends.find_spec", lambda _: None)
    assert choose(Compute(), said.append).backend == "transformers"
    assert said == ["backend: transformers (vLLM is not installed)"]
    monkeypatch.setattr("curate.backends.find_spec", lambda _: object())
    monkeypatch.setattr(
        "curate.backends.weights.choose_device", lambda name: torch.device(name or "cuda")
    )
    assert choose(Compute(), said.append).backend == "vllm"
    assert said[-1] == "backend: vllm (it is installed and there is a GPU)"
    assert choose(Compute(device="cpu"), said.append).backend == "transformers"
    assert said[-1] == "backend: transformers (vLLM is installed, but no GPU is used)"
    assert choose(Compute(servers=("http://x",)), said.append).backend == "server"
    assert len(said) == 4
    assert choose(Compute("vllm"), said.append).backend == "vllm"
    assert len(said) == 4


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (Compute("abacus"), "unknown backend 'abacus': choose auto, transformers, vllm, server"),
        (Compute("server"), "give --server URL"),
        (Compute("transformers", servers=("http://x",)), "--server goes with --backend server"),
        (Compute("transformers", engine=Engine(quantization="fp8")), "--quantization"),
        (Compute("server", servers=("http://x",), engine=Engine(tensor_parallel=2)), "vLLM's"),
    ],
)
def test_options_that_contradict_each_other(compute: Compute, words: str) -> None:
    """An option of another backend is an error, never ignored."""
    with pytest.raises(CurateError, match=words):
        choose(compute, lambda _: None)
