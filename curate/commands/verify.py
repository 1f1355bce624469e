"""`curate verify`: its options, and one call into `curate`."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.commands.options import (
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
    print_json,
    progress,
    read_template,
)


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
    from curate.backends import Compute
    from curate.templates import parse_args
    from curate.terminal import display
    from curate.verify import verify as run

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
        print_json(display.verdict_record(verdict))
    else:
        display.verdict(verdict)
    if not verdict.passed:
        raise typer.Exit(1)
