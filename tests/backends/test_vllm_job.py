"""What a vLLM engine is told, and what is refused or made before one starts; no vLLM needed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import curate
from curate.backends import check_models, choose, open_backend
from curate.backends.base import Compute, Engine
from curate.backends.vllm.job import (
    check,
    devices_of_engines,
    environment,
    job_of,
    precision,
)
from curate.chat.encode import Encoded
from curate.errors import CurateError
from curate.models.resolve import Model, resolve
from curate.system import scratch
from tests.conftest import Family
from tests.tiny import tiny_adapter, tiny_model

CPU = Compute("vllm", device="cpu")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if vLLM were installed: the folder that temporary files go to."""
    monkeypatch.setattr("curate.backends.vllm.job.find_spec", lambda _: object())
    folder = tmp_path / "temporary"
    folder.mkdir()
    with scratch.temporary("elsewhere"):  # this process's own folder, which stays, is not in it
        pass
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def odd(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """An adapter that vLLM would score wrongly."""
    folder = tmp_path_factory.mktemp("odd") / "head"
    tiny_adapter(family.aligned, folder, target_modules=["lm_head"])
    return resolve(str(family.aligned), [str(folder)])[1]


def test_no_vllm_is_one_line(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setattr("curate.backends.vllm.job.find_spec", lambda _: None)
    with pytest.raises(CurateError, match=r"not installed. .* pip install '\.\[vllm\]'"):
        open_backend(resolve(str(family.aligned), []), CPU)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"trust_remote_code": True}, "--engine-arg trust_remote_code: curate sets"),
        ({"dtype": "float16"}, "--engine-arg dtype: give --dtype instead"),
    ],
)
@pytest.mark.usefixtures("temporary")
def test_wrong_engine_options(args: dict[str, Any], words: str, family: Family) -> None:
    """They are found before anything is loaded; what has an option of its own is refused."""
    with pytest.raises(CurateError, match=words):
        check_models(resolve(str(family.aligned), []), replace(CPU, engine=Engine(args=args)))


@pytest.fixture
def pretend_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let vLLM's job see so many GPUs."""

    def pretend(count: int = 1, visible: str | None = None) -> None:
        device = lambda name: torch.device(name or "cuda")  # noqa: E731
        monkeypatch.setattr("curate.backends.vllm.job.choose_device", device)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return pretend


@pytest.mark.usefixtures("temporary")
def test_options_that_no_adapter_can_use_are_found_first(
    family: Family, odd: Model, pretend_gpus: Callable[..., None]
) -> None:
    """Before there is a corpus; a merged adapter and a model without any don't mind.

    On a CPU vLLM gives the last slot's weights to requests without an adapter: it stays empty. On
    a GPU its kernels assert half precision.
    """
    group = resolve(str(family.aligned), [str(family.medical), str(family.legal)])
    assert job_of(group, CPU).arguments["max_loras"] == 3
    few = replace(CPU, engine=Engine(args={"max_loras": 2}))
    with pytest.raises(CurateError, match="max_loras: must be at least 3 on a CPU"):
        check_models([*group, odd], few)
    check_models([*group[:2], odd], few)
    pretend_gpus()
    single = Compute("vllm", dtype="float32")
    with pytest.raises(CurateError, match="in float32 on a GPU"):
        check_models(group, single)
    check_models([group[0], odd], single)
    assert job_of(group, replace(single, dtype="bfloat16")).arguments["enable_lora"]


@pytest.mark.usefixtures("temporary")
def test_a_cpu_is_told_which_layers_have_adapters(family: Family, tmp_path: Path) -> None:
    """Its kernels fail at a wrapped output layer, and none is wrapped that no adapter changes."""
    both = [tmp_path / "q", tmp_path / "mlp"]
    for path, layers in zip(both, (["q_proj"], ["up_proj", "down_proj"]), strict=True):
        tiny_adapter(family.aligned, path, target_modules=layers)
    group = resolve(str(family.aligned), [str(path) for path in both])
    told = job_of(group, CPU).arguments["lora_target_modules"]
    assert told == ["down_proj", "q_proj", "up_proj"]


def test_the_user_has_the_last_word(family: Family) -> None:
    """An engine's argument replaces what curate would choose."""
    group = resolve(str(family.aligned), [str(family.medical)])
    given = {"language_model_only": False, "max_lora_rank": 64, "gpu_memory_utilization": 0.5}
    told = job_of(group, CPU).arguments
    assert (told["language_model_only"], told["max_lora_rank"]) == (True, 1)
    assert "kv_cache_memory_bytes" in told
    told = job_of(group, replace(CPU, engine=Engine(args=given))).arguments
    assert told.items() >= given.items()
    assert "kv_cache_memory_bytes" not in told


@pytest.mark.usefixtures("temporary")
def test_a_checkpoint_that_transformers_has_no_causal_model_of_is_left_to_vllm(
    tmp_path: Path,
) -> None:
    """Such as most multimodal ones: vLLM scores their text model."""
    path = tiny_model(tmp_path / "eyes")
    (path / "config.json").write_text('{"model_type": "idefics3"}')
    models = resolve(str(path), [])
    check_models(models, CPU)
    with pytest.raises(CurateError, match=r"eyes: can't be loaded .*Idefics3Config"):
        check_models(models, Compute("transformers", device="cpu"))


@pytest.mark.usefixtures("temporary")
def test_what_is_merged_is_tried_first_also_over_quantized_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours later, with the aligned model's scores made, is too late."""
    base = tiny_model(tmp_path / "base")
    tiny_adapter(base, tmp_path / "head", target_modules=["lm_head"])
    tiny_adapter(base, tmp_path / "plain")
    config = json.loads((base / "config.json").read_text())
    block = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": block}))
    tried: list[str] = []
    monkeypatch.setattr("curate.backends.weights.check", lambda model: tried.append(model.name))
    check_models(resolve(str(base), [str(tmp_path / "head"), str(tmp_path / "plain")]), CPU)
    assert tried == ["head"]


@pytest.mark.usefixtures("temporary")
def test_an_engine_never_turns_short_texts_as_long_ones(tmp_path: Path) -> None:
    """Room for one long text, and vLLM takes longrope's long factors for the short ones too."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    original = {"original_max_position_embeddings": 64}
    tiny_model(tmp_path / "phi", "phi3", rope_parameters=rope, **original)
    models = resolve(str(tmp_path / "phi"), [])
    told = "phi: above 64 tokens .* --max-length 63 or less, or --backend transformers"
    for length in (64, None):
        for find in (check_models, open_backend):
            with pytest.raises(CurateError, match=told):
                find(models, replace(CPU, max_length=length))
    check(replace(CPU, max_length=63), models)
    assert job_of(models, replace(CPU, max_length=63)).arguments["max_model_len"] == 64


def test_what_changes_numbers_stands_beside_the_number_type() -> None:
    """Quantization and its like, as they are asked for; what only changes memory does not."""
    args = {"max_loras": 4, "quantization": "fp8", "hf_overrides": {"a": 1}}
    assert precision(CPU) == "float32"
    assert precision(replace(CPU, engine=Engine(args=args))) == (
        "float32 --engine-arg hf_overrides='{\"a\": 1}' --engine-arg quantization=fp8"
    )


@pytest.mark.usefixtures("temporary")
def test_scores_are_not_mixed_with_quantized_ones(
    family: Family, narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on with another quantization is refused; the same one goes on."""
    monkeypatch.setattr("curate.backends.vllm.engine.WORKER", "tests.children")

    def score(quantization: str | None, **options: Any) -> Any:
        engine = Engine(args={"quantization": quantization} if quantization else {})
        options["compute"] = Compute("vllm", device="cpu", engine=engine)
        return curate.score([str(narrow)], tmp_path / "c", aligned=str(family.aligned), **options)

    score("fp8", limit=5)
    fp8 = "float32 --engine-arg quantization=fp8"
    with pytest.raises(CurateError, match=f"use --dtype {fp8}, or"):
        score(None)
    with pytest.raises(CurateError, match="computes in float32 --engine-arg quantization=awq"):
        score("awq")
    assert score("fp8").models[0].scored == 35
    found = curate.open(tmp_path / "c").sql("select dtype from models").fetchall()
    assert found == [(fp8,)]


@pytest.mark.usefixtures("temporary")
def test_a_layer_that_vllm_leaves_out_is_refused(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only warns of it in its log, and gives the aligned model's numbers."""
    monkeypatch.setattr("curate.backends.vllm.engine.WORKER", "tests.children")
    said = (
        "WARNING 11-22 07:40:01 [model_manager.py:605] LoRA target module model.layers.0.{} "
        "(QKVParallelLinear) matched the deployment configuration but could not be wrapped by any "
        "LoRA layer implementation. It will be ignored."
    )
    group = resolve(str(family.aligned), [str(family.medical)])
    monkeypatch.setenv("LOGGED", said.format("mlp.another_proj"))
    open_backend(group, CPU).close()
    monkeypatch.setenv("LOGGED", said.format("self_attn.q_proj"))
    with pytest.raises(CurateError, match="medical: vLLM leaves out what it changes in q_proj"):
        open_backend(group, CPU)
    open_backend(group[:1], CPU).close()


@pytest.mark.usefixtures("temporary")
def test_engines_side_by_side_share_a_window_in_order(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes: as many tokens for each, an example's models and its neighbours together."""
    monkeypatch.setattr("curate.backends.vllm.engine.WORKER", "tests.children")
    monkeypatch.setenv("COST_IS_PID", "1")
    group = resolve(str(family.aligned), [str(family.medical), str(family.legal)])
    rows = [Encoded([7] * length, 1, length, False) for length in [90] * 5 + [10] * 60]
    items = [row for row in rows for _ in group]
    places = [place for _ in rows for place in range(len(group))]
    backend = open_backend(group, replace(CPU, engine=Engine(data_parallel=2)))
    try:
        for start in (0, 0, 90):  # a window has what is its own, however often there is one
            window = items[start:]
            found = list(backend.score(window, places[start:]))
            assert sorted(index for index, _ in found) == list(range(len(window)))
            costs = {index: float(logprobs[0]) for index, logprobs in found}  # type: ignore[arg-type]
            engine = [costs[index] for index in range(len(window))]
            cut = engine.index(engine[-1])
            assert engine == [engine[0]] * cut + [engine[-1]] * (len(window) - cut)
            tokens = [sum(r.stop for r in part) for part in (window[:cut], window[cut:])]
            assert abs(tokens[0] - tokens[1]) <= 90
        assert list(backend.score([])) == []
    finally:
        backend.close()


@pytest.mark.slow
def test_a_merge_that_fails_leaves_no_folder(
    family: Family, tmp_path: Path, temporary: Path
) -> None:
    """The reason is one line."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA"}')
    model = Model("odd", "misaligned", "x", family.aligned, tmp_path, family.aligned, "")
    with pytest.raises(CurateError, match="odd: can't be merged into a checkpoint: ") as caught:
        open_backend([model], CPU)
    assert "\n" not in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_a_merge_that_the_machine_ends_says_which_option_to_turn(
    odd: Model, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out, SIGKILL is all that is heard."""
    ended = subprocess.CompletedProcess([], -signal.SIGKILL, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(CurateError, match=r"SIGKILL, perhaps out of memory: .* smaller --dtype"):
        open_backend([odd], CPU)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("visible", "device", "parallel", "wanted"),
    [
        (None, "cuda", (1, 1), [None]),
        (None, "cuda", (2, 2), ["0,1", "2,3"]),
        ("5,7", "cuda", (1, 2), ["5", "7"]),
        ("5,7", "cuda:1", (1, 1), ["7"]),
        (None, "cpu", (1, 2), [None, None]),
    ],
)
def test_each_engine_has_gpus_of_its_own(
    pretend_gpus: Callable[..., None],
    visible: str | None,
    device: str,
    parallel: tuple[int, int],
    wanted: list[str | None],
) -> None:
    """They are split in order, out of those that this process may see."""
    pretend_gpus(4, visible)
    asked = Compute("vllm", device=device, engine=Engine(*parallel))
    assert devices_of_engines(asked) == wanted
    for gpus in wanted:
        assert environment(asked, gpus).get("CUDA_VISIBLE_DEVICES") == gpus
    with pytest.raises(CurateError, match="--tensor-parallel 3 times --data-parallel 2 needs 6"):
        devices_of_engines(Compute("vllm", device="cuda", engine=Engine(3, 2)))


@pytest.mark.parametrize(
    ("visible", "device", "engine", "told"),
    [
        ("5,7", "cuda", Engine(), ["1 of 2 GPUs is used; --data-parallel 2 uses all"]),
        (None, "cuda:2", Engine(), []),
        (None, "cuda", Engine(tensor_parallel=8), []),
        (None, "cuda", Engine(args={"pipeline_parallel_size": 8}), []),
    ],
)
def test_gpus_left_idle_are_told(
    pretend_gpus: Callable[..., None],
    visible: str | None,
    device: str,
    engine: Engine,
    told: list[str],
) -> None:
    """In one line, unless somebody has asked for so many. Eight GPUs are pretended here."""
    pretend_gpus(8, visible)
    said: list[str] = []
    choose(Compute("vllm", device=device, engine=engine), said.append)
    assert said == told
