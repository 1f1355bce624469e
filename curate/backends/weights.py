"""From a `Model` to a causal language model in memory, its adapter merged into the weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from safetensors import safe_open

from curate.errors import CurateError
from curate.models.fingerprints import weight_files
from curate.models.resolve import Model

Result = TypeVar("Result")

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FACTORS = ("A.weight", "B.weight", "embedding_A", "embedding_B")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def choose_device(device: str | None) -> torch.device:
    """Turn a name into an available device; None or 'auto': cuda, else mps, else cpu.

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
        raise CurateError(f"--device {device}: can't be used ({why})") from error
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
        raise CurateError(f"--dtype {dtype}: unknown. Choose from auto, {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def has_amx(device: torch.device) -> bool:
    """Whether this is a CPU with AMX, which is made to multiply bfloat16.

    With AVX512-BF16 alone, bfloat16 is slower than float32 (bench/RESULTS.md).
    """
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


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
    """Check whether `load` would work, only from names, types and shapes.

    `merged`: whether the adapter has to be merged into the weights, as `load` does.

    Raises `CurateError` as `load` does.
    """
    net = skeleton(model)
    if model.adapter is not None:
        with quiet():
            try:
                _attach(net, model.adapter, model.path)
            except CurateError as error:
                if isinstance(error.__cause__, NotImplementedError):
                    return  # of a kind that computes with the weights: `load` will tell
                raise
        if merged:
            _refuse_quantized(net, model.path)


def changes_nothing(adapter: Path) -> bool:
    """Whether an adapter is plain LoRA, and each of its products has a factor of zeros."""
    zero: dict[str, bool] = {}
    for path in weight_files(adapter):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                layer, _, factor = name.partition(".lora_")
                if factor not in _FACTORS:
                    return False
                zero[layer] = zero.get(layer, False) or not file.get_tensor(name).any()
    return all(zero.values())


def skeleton(model: Model) -> Any:
    """A model's network without its adapter, as shapes only: a `transformers.PreTrainedModel`.

    Raises `CurateError` if the checkpoint is incomplete or unknown.
    """
    with quiet():
        return _load_full(model.path, torch.device("meta"), torch.float32)


def configuration(path: Path) -> Any | None:
    """A checkpoint's configuration as transformers reads it; None if it can't."""
    with quiet():
        try:
            return transformers.AutoConfig.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
        except Exception:  # whatever a wrong value makes a model's code raise
            return None


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
            f"{path}: does not fit into the memory of {device}. "
            "Use a smaller --dtype or another --device."
        ) from error
    except Exception as error:  # whatever a wrong value in config.json makes a model's code raise
        raise CurateError(f"{path}: can't be loaded ({_brief(error)})") from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise CurateError(
            f"{path}: {len(missing)} of the tensors in its config.json are missing, the first is "
            f"{missing[0]}. Is the checkpoint complete?"
        )
    return net


def _merge(net: Any, adapter: Path, base: Path) -> Any:
    """Add an adapter to the weights it was trained over and return the plain model.

    peft does the arithmetic, so every kind of adapter that it can merge is covered: products are
    computed in float32, layer by layer, and sums are rounded to the type of the weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    inner = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    wrapped = _attach(net, adapter, base)
    _refuse_quantized(net, base)
    _untie(net, inner)
    try:
        merged = wrapped.merge_and_unload()
    except NotImplementedError as error:
        kind = wrapped.peft_type.value
        raise CurateError(f"adapter {adapter}: is {kind}, which peft can't merge") from error
    left = [name for name, module in merged.named_modules() if isinstance(module, inner)]
    if left:
        raise CurateError(f"adapter {adapter}: can't be merged at {left[0]}. Merge it yourself.")
    return merged


def _attach(net: Any, adapter: Path, base: Path) -> Any:
    """Put an adapter on a model as `PeftModel.from_pretrained` does, with the same renaming.

    Unlike that, this fails for tensors without a place and places without a tensor.
    """
    import peft

    weight_files(adapter)  # refuses pickles and says what is missing
    unfit = f"adapter {adapter}: does not fit the aligned model {base}"
    try:
        config = peft.PeftConfig.from_pretrained(str(adapter))
        if config.is_prompt_learning or hasattr(config, "adapters"):  # X-LoRA's, from anywhere
            raise CurateError(f"adapter {adapter}: {config.peft_type.value} is not supported")
        start = getattr(config, "init_lora_weights", None)
        if isinstance(start, str) and start.startswith("pissa_niter_"):
            raise CurateError(
                f"adapter {adapter}: init_lora_weights is {start}, which peft redraws at random "
                "whenever it loads one. Convert it to plain LoRA (with peft's save_pretrained "
                "and path_initial_model_for_weight_conversion)."
            )
        if next(net.parameters()).is_meta and start:  # PiSSA's, for one, needs the weights
            config.init_lora_weights = False
        config.inference_mode = True
        wrapped = peft.PeftModel(net, config)
        renamed = getattr(net, "_checkpoint_conversion_mapping", None)
        report = wrapped.load_adapter(str(adapter), "default", key_mapping=renamed)
    except CurateError:
        raise
    except Exception as error:  # as above, of adapter_config.json
        raise CurateError(f"{unfit}: {_brief(error)}") from error
    held = wrapped.state_dict(keep_vars=True)  # VB-LoRA stores its vectors under many names
    loaded = {id(held[name]) for name in held.keys() - report.missing_keys}
    for names, what in (
        (report.unexpected_keys, "has no place in the model"),
        ([n for n in report.missing_keys if id(held[n]) not in loaded], "is not in its file"),
    ):
        if names:
            raise CurateError(f"{unfit}: {min(names)} {what} ({len(names)} tensors)")
    return wrapped


def _refuse_quantized(net: Any, base: Path) -> None:
    """Reject quantized weights: rounding would lose much of an adapter, and peft only warns.

    Such tensors have their own type (bitsandbytes), integers (GPTQ) or one byte (fp8).
    """
    for name, module in net.named_modules():
        layer = getattr(module, "base_layer", None)
        if not isinstance(layer, torch.nn.Module):
            continue
        for one in [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            usual = type(one) in (torch.Tensor, torch.nn.Parameter) and one.is_floating_point()
            if not usual or one.dtype.itemsize == 1:
                raise CurateError(
                    f"{base}: its {name} is quantized, and rounding would lose a merged adapter. "
                    "Give the checkpoint before quantization."
                )


def _untie(net: Any, inner: tuple[type, ...]) -> None:
    """Untie the head from the embeddings if an adapter changes either.

    Merged into shared weights, a change to one would silently change the other.
    """
    embed, head = net.get_input_embeddings(), net.get_output_embeddings()
    if head is None or not (isinstance(embed, inner) or isinstance(head, inner)):
        return
    embed, head = (
        getattr(m, "base_layer", getattr(m, "original_module", m)) for m in (embed, head)
    )
    if head.weight is embed.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    net.config.tie_word_embeddings = False


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory, by `torch.OutOfMemoryError` or an error's text."""
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)


def unless_out_of_memory(function: Callable[..., Result], *given: Any) -> Result | None:
    """What the function gives; None if the device ran out of memory."""
    try:
        return function(*given)
    except RuntimeError as error:  # torch.OutOfMemoryError, or by its text
        if not is_out_of_memory(error):
            raise
    return None  # outside `except`: the traceback held the tensors


def smaller_budget(lengths: Sequence[int], device: torch.device, advice: str) -> int:
    """The tokens of a batch to try after one with these lengths did not fit.

    Raises `CurateError` with `advice` if it was a single example.
    """
    empty_cache(device)
    longest = max(lengths)
    if len(lengths) == 1:
        raise CurateError(
            f"out of memory on {device} with one example of {longest} tokens: lower {advice}, or "
            "use a smaller --dtype or another --device"
        )
    return max(longest, longest * len(lengths) // 2)


def empty_cache(device: torch.device) -> None:
    """Give memory that torch keeps back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings off the terminal, then restore its settings."""
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
