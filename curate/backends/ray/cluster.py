"""The cluster: connecting to it, what a worker asks of it, and whether its machines are alike."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import replace
from functools import wraps
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

from curate.backends.base import Compute
from curate.backends.ray import worker
from curate.errors import CurateError
from curate.models.elsewhere import absolute, locate
from curate.models.resolve import Model
from curate.system.progress import Progress
from curate.system.stopping import check_cancelled

ANSWER_SECONDS, PATIENCE_SECONDS = 5.0, 60.0
Given = ParamSpec("Given")
Result = TypeVar("Result")
Site = Callable[..., Any]
"""A function of models, options and a progress, and of what else it is given."""


def leaving(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Disconnect from the cluster when the function ends, unless we were connected before.

    Its keyword `compute` names the cluster. What Ray prints on stdout meanwhile (such as that a
    machine is gone) goes to stderr.
    """

    @wraps(function)
    def run(*args: Given.args, **given: Given.kwargs) -> Result:
        if getattr(given.get("compute"), "ray", None) is None:
            return function(*args, **given)
        before = _is_connected()
        sys.stdout.flush()
        stdout = os.dup(1)
        os.dup2(2, 1)
        try:
            return function(*args, **given)
        finally:
            if not before and _is_connected():
                sys.modules["ray"].shutdown()
            sys.stdout.flush()
            os.dup2(stdout, 1)
            os.close(stdout)

    return run


def _is_connected() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def connect(address: str) -> None:
    """Connect to the cluster at an address; `auto` is the local one, which is started if needed.

    Raises `CurateError` if Ray is not installed or nothing answers.
    """
    if find_spec("ray") is None:
        raise CurateError("--ray needs Ray: pip install '.[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if address != "auto":
        _refuse(address)
    # Ray puts the current folder on its workers' sys.path, and files in it may be anyone's. It
    # also takes SIGTERM for itself.
    handler = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        with chdir(sys.prefix):
            try:
                ray.init(address, **options)
            except ConnectionError:
                if address != "auto":
                    raise
                ray.init(include_dashboard=False, **options)
    except Exception as error:  # Ray raises bare ones
        raise CurateError(f"--ray {address}: {' '.join(str(error).split())}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _refuse(address: str) -> None:
    """Reject addresses at which Ray would wait for a minute, or that have another protocol."""
    if "://" in address:
        raise CurateError(
            f"--ray {address}: Ray's client protocol can't stream results. Run curate on the "
            "cluster's head, as `ray job submit` does, with --ray auto."
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise CurateError(
            f"--ray {address}: not an address. Give auto or HOST:PORT, such as 10.0.0.1:6379."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise CurateError(
            f"--ray {address}: nothing answers there ({error}). Start a head with `ray start "
            "--head`, or give --ray auto on a machine of the cluster."
        ) from error


def needs(compute: Compute) -> dict[str, float]:
    """What a worker requests from Ray: the GPUs of its engines, or the smallest machine's cores.

    Raises `CurateError` if no machine has that.
    """
    nodes = _nodes()
    gpus = compute.engine.tensor_parallel * compute.engine.data_parallel
    device = compute.device or "auto"
    if device.startswith("cuda") or (device == "auto" and any(_of(n)["GPU"] for n in nodes)):
        asked = {"CPU": 1.0, "GPU": float(gpus)}
    else:
        cores = [_of(node)["CPU"] for node in nodes if _of(node)["CPU"]]
        asked = {"CPU": min(cores, default=1.0)}
    if not places(asked):
        there = Counter(_said(_of(node)) for node in nodes)
        have = "; ".join(f"{count} with {what}" for what, count in there.items())
        raise CurateError(
            f"no machine of the cluster has room for a worker, which needs {_said(asked)}. Up are: "
            f"{have or 'none'}. Add machines that have it."
        )
    return asked


def places(asked: Mapping[str, float]) -> int:
    """How many workers the running machines have room for if nothing else runs there."""
    return sum(_room(node, asked) for node in _nodes())


def _room(node: Mapping[str, Any], asked: Mapping[str, float]) -> int:
    return int(min(_of(node)[key] // count for key, count in asked.items()))


def _with_room(asked: Mapping[str, float]) -> list[dict[str, Any]]:
    return [node for node in _nodes() if _room(node, asked)]


def _on(node: Mapping[str, Any]) -> Any:
    """Ray's word for one machine and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _of(node: Mapping[str, Any]) -> dict[str, float]:
    return {key: node["Resources"].get(key, 0.0) for key in ("CPU", "GPU")}


def _said(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{n:g} {key}{'' if n == 1 else 's'}" for key, n in resources.items())


def options(asked: Mapping[str, float]) -> dict[str, float]:
    """The same as options of Ray's tasks and actors."""
    return {"num_cpus": asked["CPU"], "num_gpus": asked.get("GPU", 0.0)}


def on_workers(
    function: Site,
    models: Sequence[Model],
    compute: Compute,
    note: Callable[[str], None],
    *given: Any,
    every: bool = False,
) -> list[Any]:
    """Call a function on a machine that has room for a worker, or on every one.

    It receives the models by their folders there, the options without the cluster, a progress and
    `given`. Its notes are passed on, each once, and its errors are raised here.
    """
    import ray

    asked = needs(compute)
    call = ray.remote(max_retries=3, **options(asked))(_on_site)
    calls = [call]
    if every:
        calls = [call.options(scheduling_strategy=_on(node)) for node in _with_room(asked)]
    alone = replace(compute, ray=None, workers=None)
    refs = [each.remote(function, absolute(models), alone, given) for each in calls]
    began, noted = time.monotonic(), False
    while len(ray.wait(refs, num_returns=len(refs), timeout=1.0)[0]) < len(refs):
        check_cancelled()
        if not noted and time.monotonic() - began > PATIENCE_SECONDS:
            note("still waiting for the cluster; `ray status` shows whether its machines are busy")
            noted = True
    found = [_get(ref) for ref in refs]
    for text in dict.fromkeys(text for _, notes in found for text in notes):
        note(text)
    return [result for result, _ in found]


class _Notes(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def _on_site(
    function: Site, models: Sequence[Model], compute: Compute, given: Sequence[Any]
) -> tuple[Any, list[str]]:
    notes = _Notes()
    return function(locate(models), compute, notes, *given), notes.texts


def check_options(compute: Compute) -> None:
    """Raise `CurateError` for options that contradict --ray."""
    if compute.servers or compute.backend == "server":
        raise CurateError("--ray: servers need no workers. Remove --ray, or use another backend.")
    if compute.device and ":" in compute.device:
        raise CurateError(f"--device {compute.device}: Ray chooses the GPU. Give --device cuda.")


def check_machines(models: Sequence[Model], compute: Compute) -> None:
    """Check that every machine with room for a worker has these models and the same versions.

    Raises `CurateError` if a model or a version differs between machines.
    """
    import ray

    nodes, models = _with_room(needs(compute)), absolute(models)
    look = ray.remote(num_cpus=0)(_look)
    refs = [look.options(scheduling_strategy=_on(node)).remote(models) for node in nodes]
    here = worker.versions()
    for node, ref in zip(nodes, refs, strict=True):
        there, place = _get(ref), node["NodeManagerAddress"]
        if node is nodes[0]:
            refuse_other({"curate-gap": here["curate-gap"]}, there, "this machine", place)
            first, where = there, place
        refuse_other(first, there, where, place)


def refuse_other(
    first: Mapping[str, str | None], second: Mapping[str, str | None], where: str, there: str
) -> None:
    """Raise `CurateError` if versions on two machines differ."""
    for package, version in first.items():
        if second[package] != version:
            raise CurateError(
                f"{package} is {version or 'missing'} on {where} and {second[package] or 'missing'}"
                f" on {there}, so their numbers may differ. Use the same on every machine."
            )


def _look(models: Sequence[Model]) -> dict[str, str | None]:
    locate(models)
    return worker.versions()


def _get(ref: Any) -> Any:
    """The result of a call; its own error, unwrapped from Ray's."""
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CurateError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise CurateError(f"Ray: {' '.join(str(error).split())[:600]}") from error
