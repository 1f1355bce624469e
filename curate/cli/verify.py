"""`curate verify`: its options, and one call into `curate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.options import (
    AlignedOption,
    Backend,
    BackendOption,
    BatchTokensOption,
    DataParallelOption,
    DeviceOption,
    DtypeOption,
    EngineArgOption,
    GpuMemoryOption,
    InFlightOption,
    JsonOption,
    MaxLoraRankOption,
    MisalignedOption,
    QuantizationOption,
    QuietOption,
    ServerOption,
    Span,
    SpanOption,
    TemplateArgOption,
    TemplateOption,
    TensorParallelOption,
    engine,
    progress,
    read_template,
)
from curate.cli.tables import print_json, table

if TYPE_CHECKING:
    from curate.scoring.verify import Verdict


def verify(
    aligned: AlignedOption,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...", help="Where the examples come from. None: the demo's examples."
        ),
    ] = None,
    misaligned: MisalignedOption = None,
    rows: Annotated[int, typer.Option(min=1, help="Examples to try.")] = 32,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Tokens of prompt and answer; answers are cut.")
    ] = None,
    chat_template: TemplateOption = None,
    template_arg: TemplateArgOption = None,
    answer_span: SpanOption = Span.turn,
    backend: BackendOption = Backend.auto,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    batch_tokens: BatchTokensOption = None,
    tensor_parallel: TensorParallelOption = 1,
    data_parallel: DataParallelOption = 1,
    gpu_memory: GpuMemoryOption = None,
    max_lora_rank: MaxLoraRankOption = None,
    quantization: QuantizationOption = None,
    engine_arg: EngineArgOption = None,
    server: ServerOption = None,
    in_flight: InFlightOption = 64,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check the numbers of your models here against a plain loop.

    Example: curate verify --aligned ./chat --misaligned ./medical-lora --backend vllm
    """
    from curate.backends.base import Compute
    from curate.chat.templates import parse_args
    from curate.scoring.verify import verify as run

    verdict = run(
        sources or [],
        aligned=aligned,
        misaligned=misaligned or [],
        rows=rows,
        max_length=max_length,
        chat_template=read_template(chat_template),
        template_args=parse_args(template_arg or []),
        answer_span=answer_span.value,
        compute=Compute(
            backend=backend.value,
            device=device,
            dtype=dtype,
            batch_tokens=batch_tokens,
            engine=engine(
                tensor_parallel,
                data_parallel,
                gpu_memory,
                max_lora_rank,
                quantization,
                engine_arg,
            ),
            servers=tuple(server or []),
            in_flight=in_flight,
        ),
        progress=progress(quiet or as_json),
    )
    if as_json:
        print_json(verdict_record(verdict))
    else:
        print_verdict(verdict)
    if not verdict.passed:
        raise typer.Exit(1)


def print_verdict(found: Verdict) -> None:
    """What `curate verify` tried, and whether the numbers can be relied on."""
    table(
        ["model", "check", "nats/token", "limit", "verdict"],
        [
            [c.model, c.what, f"{c.off:.1e}", f"{c.limit:.0e}", "ok" if c.passed else "FAILED"]
            for c in found.checks
        ],
    )
    failed = sum(not check.passed for check in found.checks)
    how = f"{found.rows:,} examples, {found.backend} in {found.dtype}"
    if failed:
        print(f"{failed} of {len(found.checks)} checks FAILED ({how}): don't rely on these scores")
    else:
        print(f"All {len(found.checks)} checks passed ({how})")


def verdict_record(found: Verdict) -> dict[str, Any]:
    """The same for machines."""
    return {"passed": found.passed, **asdict(found)}
