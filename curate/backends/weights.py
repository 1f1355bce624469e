"""From a `Model` to a causal language model in memory, its adapter merged into the weights."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from curate.errors import CurateError
from curate.models.fingerprints import read_json, weight_files
from curate.models.resolve import Model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
_SIZE_MISMATCH = re.compile(
    r"size mismatch for (\S+): .*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)"
)


def choose_device(device: str | None) -> torch.device:
    """Turn a device's name into a device that is there; None or 'auto': cuda, else mps, else cpu.

    Raises `CurateError` for a device that torch does not know or cannot use.
    """
    if device in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise CurateError(f"device {device!r} cannot be used: {why}") from error
    return chosen


def choose_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """Turn a type's name into a torch type; None or 'auto': half precision on cuda only.

    Raises `CurateError` for an unknown name.
    """
    if dtype in (None, "auto"):
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if dtype not in _DTYPES:
        raise CurateError(f"unknown dtype {dtype!r}: choose auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def load(model: Model, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a model's full weights, merge its adapter if it has one, and set it to evaluation.

    Returns a `transformers.PreTrainedModel`. Only safetensors are read and no code from the
    folder is run.

    Raises `CurateError` if the weights are incomplete or unknown, or the adapter does not fit.
    """
    with quiet():
        net = _load_full(model.path, device, dtype)
        if model.adapter is not None:
            net = _merge(net, model.adapter, model.path)
    return net.eval().requires_grad_(False)


def check(model: Model, *, merged: bool = True) -> None:
    """Find out whether `load` would work, from names, types and shapes alone: no weight is read.

    `merged`: whether the adapter has to become a part of the weights, as `load` makes it.

    Raises `CurateError` as `load` does.
    """
    net = skeleton(model)
    with quiet():
        if model.adapter is not None:
            with _fitting(model.adapter, model.path):
                _attach(net, model.adapter)
                if merged:
                    _refuse_quantized(net, model.path)


def is_quantized(model: Model) -> bool:
    """Whether the checkpoint's own weights are quantized, by its configuration."""
    return "quantization_config" in read_json(model.path / "config.json")


def skeleton(model: Model) -> Any:
    """A model's full network without its adapter, shapes alone: a `transformers.PreTrainedModel`.

    Raises `CurateError` if the checkpoint is incomplete or unknown.
    """
    with quiet():
        return _load_full(model.path, torch.device("meta"), torch.float32)


def _load_full(path: Path, device: torch.device, dtype: torch.dtype) -> Any:
    try:
        net, report = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            device_map=None if device.type == "cpu" else {"": device},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise CurateError(
            f"{path} does not fit into the memory of {device}: "
            "use a smaller --dtype or another --device"
        ) from error
    except Exception as error:  # whatever a wrong value in config.json makes a model's code raise
        raise CurateError(f"{path} cannot be loaded: {_brief(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers fills them with random numbers and goes on
        raise CurateError(
            f"{path} lacks {len(missing)} of the tensors its config.json asks for, "
            f"{missing[0]} first: is it a whole checkpoint?"
        )
    return net


def _merge(net: Any, adapter: Path, base: Path) -> Any:
    """Add an adapter to the weights it was trained over and return the plain model.

    peft does the arithmetic, so that every kind it can merge is covered: the products are taken
    in float32, layer by layer, and the sums rounded to the type of the weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    inner = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    with _fitting(adapter, base):
        wrapped = _attach(net, adapter)
        _refuse_quantized(net, base)
        _untie(net, inner)
        merged = wrapped.merge_and_unload()
    left = [name for name, module in merged.named_modules() if isinstance(module, inner)]
    if left:
        raise CurateError(f"adapter {adapter} cannot be merged at {left[0]}: merge it yourself")
    return merged


def _attach(net: Any, adapter: Path) -> Any:
    """Put an adapter over a model, every one of its tensors in its place."""
    import peft

    weight_files(adapter)  # refuses pickles and says what is missing
    config = peft.PeftConfig.from_pretrained(str(adapter))
    if config.is_prompt_learning:
        raise CurateError(f"adapter {adapter} adds prompt tokens, not weights: not supported")
    if hasattr(config, "adapters"):  # X-LoRA: peft would fetch them from wherever they are
        raise CurateError(f"adapter {adapter} is made of other adapters: not supported")
    wrapped = peft.PeftModel.from_pretrained(net, str(adapter))
    _refuse_homeless(wrapped, adapter)
    return wrapped


@contextmanager
def _fitting(adapter: Path, base: Path) -> Iterator[None]:
    """Say in one line why an adapter does not fit."""
    unfit = f"adapter {adapter} does not fit the aligned model {base}"
    try:
        yield
    except CurateError:
        raise
    except Exception as error:  # as above, of adapter_config.json
        mismatch = _SIZE_MISMATCH.search(str(error))
        if mismatch:
            name, found, wanted = mismatch.groups()
            raise CurateError(f"{unfit}: {name} is {found} and should be {wanted}") from error
        raise CurateError(f"{unfit}: {_brief(error)}") from error


def _refuse_homeless(wrapped: Any, adapter: Path) -> None:
    """Compare the adapter file's tensors with those peft took: it only warns of the rest."""
    import peft
    from safetensors import safe_open

    with safe_open(weight_files(adapter)[0], framework="pt") as file:
        saved = set(file.keys())
    taken = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    homeless = sorted(saved - taken - set(wrapped.state_dict()))
    if homeless:
        raise ValueError(f"{homeless[0]} has no place in it ({len(homeless)} tensors)")
    absent = sorted(taken - saved)
    if absent:
        raise ValueError(f"{absent[0]} is not in its file ({len(absent)} tensors)")


def _refuse_quantized(net: Any, base: Path) -> None:
    """Sums that are rounded to a few bits lose much of an adapter, and peft only warns of it."""
    for name, module in net.named_modules():
        layer = getattr(module, "base_layer", None)
        if isinstance(layer, torch.nn.Module) and _is_quantized(layer):
            raise CurateError(
                f"{base}: its {name} is quantized, and a merged adapter would be rounded away: "
                "name the checkpoint before quantization"
            )


def _is_quantized(layer: torch.nn.Module) -> bool:
    """Such tensors have a type of their own (bitsandbytes), integers (GPTQ) or a byte (fp8)."""
    tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    plain = (torch.Tensor, torch.nn.Parameter)
    return any(
        type(one) not in plain or not one.is_floating_point() or one.dtype.itemsize == 1
        for one in tensors
    )


def _untie(net: Any, inner: tuple[type, ...]) -> None:
    """Give the head weights of its own if an adapter changes it or the embeddings they share.

    Merged into shared weights, a change of the one would silently change the other too.
    """
    embed, head = net.get_input_embeddings(), net.get_output_embeddings()
    if head is None or not (isinstance(embed, inner) or isinstance(head, inner)):
        return
    embed, head = (m.get_base_layer() if hasattr(m, "get_base_layer") else m for m in (embed, head))
    embed, head = (getattr(m, "original_module", m) for m in (embed, head))
    if head.weight is embed.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    net.config.tie_word_embeddings = False


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device had no room: `torch.OutOfMemoryError` says so, and so do other errors."""
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _brief(error: BaseException) -> str:
    """One line of an error whose text may have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and warnings off the terminal, and leave its settings as found."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
