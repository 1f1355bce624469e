"""Calls to the hub: what is tried again, how each fault is told, and that a stop is heard."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download

from curate.errors import CurateError
from curate.system.hub import cached_commit, call, look_up
from curate.system.hub_errors import Repo, Unreachable
from tests.conftest import stop_seconds
from tests.hub import Hub

INFO = "GET hub /api/models/acme/chat"
FILES = {"config.json": "{}", "model.safetensors": bytes(range(256)) * 400}
CHAT = Repo("acme/chat")


@pytest.fixture
def commit(hub: Hub) -> str:
    """The commit of `acme/chat`, which the hub then has."""
    return hub.push("acme/chat", FILES)


def fetch(name: str = "model.safetensors", repo: Repo = CHAT) -> bytes:
    """A file of the repository, through the cache."""
    return call(repo, lambda: Path(hf_hub_download(repo.id, name)).read_bytes())


def told(repo: Repo) -> str:
    """What a look at this repository is refused with."""
    with pytest.raises(CurateError) as caught:
        look_up(repo)
    return str(caught.value)


def test_look_up(hub: Hub, commit: str) -> None:
    """A repository's commit is found with its files' sizes, and the cache notes it."""
    hub.push("datasets/acme/set", {"train.jsonl": "{}\n"})
    assert look_up(CHAT) == (commit, {"config.json": 2, "model.safetensors": 102_400})
    assert look_up(Repo("acme/set", "dataset"))[1] == {"train.jsonl": 3}
    assert cached_commit(CHAT) == commit
    assert cached_commit(Repo("acme/other")) is None


@pytest.mark.parametrize("match", [INFO, "GET cdn"])
@pytest.mark.parametrize(
    "fault",
    [
        {"do": "status", "status": 503},
        {"do": "status", "status": 429, "headers": {"Retry-After": "0"}},
        {"do": "drop"},
        {"do": "cut"},
        {"do": "reset"},
        {"do": "stall"},
    ],
    ids=lambda fault: fault.get("status", fault["do"]),
)
@pytest.mark.usefixtures("commit")
def test_what_passes_is_tried_again(hub: Hub, match: str, fault: dict[str, Any]) -> None:
    """One fault of any kind, in an answer or in a file, changes nothing but the time it takes."""
    hub.fail(match, **fault)
    look_up(CHAT)
    assert fetch() == FILES["model.safetensors"]
    assert len(hub.asked(match)) == hub.faults[0].seen > 1


@pytest.mark.usefixtures("commit")
def test_a_lost_connection_before_a_file(hub: Hub) -> None:
    """The request for a file's size, which huggingface_hub makes only once, is repeated."""
    hub.fail("HEAD hub", "drop")
    assert fetch("config.json") == b"{}"


@pytest.mark.usefixtures("commit")
def test_what_stays_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few attempts, each with a note that says why, one line says what to do."""
    notes: list[str] = []
    hub.fail(INFO, "status", headers={"Retry-After": "0"}, times=99)
    with pytest.raises(Unreachable, match=r"acme/chat: the Hub returned 503\. Wait a little"):
        look_up(CHAT, notes.append)
    assert notes[0] == "acme/chat: the Hub returned 503; trying again in 0 s"
    assert len(notes) == 3
    hub.faults.clear()
    hub.fail(INFO, "status", status=429, headers={"Retry-After": "3600"}, times=99)
    assert "rate limit is reached" in told(CHAT)  # at once: an hour is too long
    hub.faults.clear()
    hub.fail("GET cdn", "cut", times=99)
    monkeypatch.setattr("curate.system.hub.ATTEMPTS", 1)  # the library makes some in each
    with pytest.raises(Unreachable, match=r"ended its answer too early .* Check the network"):
        fetch()


@pytest.mark.usefixtures("commit")
def test_what_is_not_there(hub: Hub) -> None:
    """A name, a revision and a file that the hub doesn't have; what it has of them is told."""
    hub.push("acme/chat", {}, ref="v0.9")
    assert "Hub has no model acme/chta, or it is private. Check" in told(Repo("acme/chta"))
    assert "Hub has no dataset acme/chat" in told(Repo("acme/chat", "dataset"))
    missing = Repo("acme/chat", revision="v1", name="chat=acme/chat@v1")
    assert told(missing) == "chat=acme/chat@v1: no such revision. There are: main, v0.9"
    with pytest.raises(CurateError, match=r"acme/chat: no such file: sub/a\.json"):
        fetch("sub/a.json")
    assert len(hub.asked("GET hub /api/models/acme/chta")) == 1  # it is no fault that passes


def test_who_may_read(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gated, private, and a token that the hub doesn't know."""
    hub.tokens = {"hf_known", "hf_stranger"}
    hub.repos["acme/chat"].gated, hub.repos["acme/chat"].known = True, {"hf_known"}
    accept = f"Accept the terms at {hub.url}/acme/chat"
    for token, gated in (
        ("", f"acme/chat: gated. {accept}, then log in: hf auth login"),
        ("hf_stranger", f"your token's account has no access. {accept} with it"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(CurateError, match=re.escape(gated)):
            fetch("config.json")
    monkeypatch.setenv("HF_TOKEN", "hf_known")
    assert fetch("config.json") == b"{}"
    hub.repos["acme/chat"].private = True
    assert look_up(CHAT)[0] == commit
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    assert "or it is private" in told(CHAT)
    monkeypatch.setenv("HF_TOKEN", "hf_mistyped")
    assert "token isn't valid. Log in again: hf auth login" in told(CHAT)


@pytest.mark.usefixtures("commit")
def test_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline on purpose, and by accident; the cache still has what was fetched."""
    fetch("config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch("config.json") == b"{}"
    with pytest.raises(Unreachable, match=r"HF_HUB_OFFLINE is set.*hf download acme/chat"):
        fetch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.close()
    with pytest.raises(Unreachable, match=r"can't be reached .*Check the network"):
        look_up(CHAT)


def test_other_errors() -> None:
    """An error of the call's own stays; a bug keeps its traceback; a full disk is told."""
    for error, caught, words in (
        (CurateError("mine"), CurateError, "^mine$"),
        (KeyError("bug"), KeyError, "bug"),
        (OSError(28, "No space left on device", "/x"), CurateError, "/x: No space left.*HF_HOME"),
        (ValueError("one\ntwo"), CurateError, "^acme/chat: one$"),
    ):

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(caught, match=words):
            call(CHAT, fail)


@pytest.mark.usefixtures("commit")
def test_a_stop_is_heard(hub: Hub) -> None:
    """While the hub is silent, and though it may be for a minute more."""
    hub.fail("cdn", "stall", times=9)
    code = """
from huggingface_hub import hf_hub_download
from curate.system.hub import call
from curate.system.hub_errors import Repo
from curate.system.stopping import Stopped, stoppable
with stoppable():
    try:
        call(Repo("acme/chat"), lambda: hf_hub_download("acme/chat", "model.safetensors"))
    except Stopped:
        print("stopped")
"""
    patient = os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    for times, number in enumerate((signal.SIGINT, signal.SIGTERM), start=1):
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=patient, stdout=subprocess.PIPE, text=True
        )
        hub.wait_for("GET cdn", times)
        child.send_signal(number)
        began = time.monotonic()
        assert child.communicate(timeout=60)[0] == "stopped\n"
        assert time.monotonic() - began < stop_seconds()
