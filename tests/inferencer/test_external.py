"""A model in another process: the reference helper answers as the bundle does, dies, hangs and comes back."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from edgeml.component import Context
from edgeml.errors import BackendError
from external_support import PICTURE, bundle, helper, made, problem
from fitting_support import opened
from inferencer_support import sample
from support import eventually


def test_a_helper_answers_what_the_bundle_itself_answers(folder: Path, context: Context) -> None:
    path = bundle(folder)
    own = opened(path).infer(sample(PICTURE))
    assert own is not None
    with helper(path, folder / "s"):
        model = made(context, folder / "s")
        try:
            eventually(model.poll, 20, "the helper")
            for _ in range(3):
                outcome = model.infer(sample(PICTURE))
                assert outcome is not None
                assert outcome.results == own.results
                assert (outcome.backend, outcome.model.name) == ("external", "Tiny")
        finally:
            model.close()


def test_a_helper_may_die_and_come_back(folder: Path, context: Context) -> None:
    path = bundle(folder)
    with helper(path, folder / "s"):
        model = made(context, folder / "s")
        try:
            eventually(model.poll, 20, "the helper")
        except BaseException:
            model.close()
            raise
    try:
        with pytest.raises(BackendError, match=r"gone|there|pipe"):
            model.infer(sample(PICTURE))
        assert not model.poll()
        eventually(lambda: problem(context) == "unreachable", 20, "the problem")
        with helper(path, folder / "s"):
            eventually(model.poll, 40, "the helper again")
            assert model.infer(sample(PICTURE)) is not None
            eventually(lambda: problem(context) == "", 20, "the end of the problem")
    finally:
        model.close()


def test_the_reference_helper_outlives_whoever_comes(folder: Path, context: Context) -> None:
    said = [
        b"[1]",
        b"{}",
        b'{"memory": 4096, "inputs": {"input": 0}, "outputs": {"output0": 0}}',
        b'{"memory": "much"}',
    ]
    path = bundle(folder)
    with helper(path, folder / "s") as process:
        for message in said:
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
                os.fdopen(os.memfd_create("m"), "wb") as file,
            ):
                client.settimeout(20)
                client.connect(str(folder / "s"))
                assert client.recv(1 << 17)
                file.truncate(4096)
                socket.send_fds(client, [message], [file.fileno()])
                assert client.recv(1 << 17) == b""
        assert process.poll() is None
        model = made(context, folder / "s")
        try:
            eventually(model.poll, 20, "the helper")
        finally:
            model.close()


def test_a_helper_that_hangs_costs_one_time_out(folder: Path, context: Context) -> None:
    path = bundle(folder)
    with helper(path, folder / "s") as process:
        model = made(context, folder / "s", timeout_s=0.3)
        try:
            eventually(model.poll, 20, "the helper")
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(BackendError, match=r"no answer of the helper within 0.3 s"):
                model.infer(sample(PICTURE))
            assert time.monotonic() - began < 5
            process.send_signal(signal.SIGCONT)
            eventually(model.poll, 40, "the helper again")
        finally:
            process.send_signal(signal.SIGCONT)
            model.close()


def test_nobody_there_is_a_problem_and_closing_is_quick(folder: Path, context: Context) -> None:
    model = made(context, folder / "absent")
    eventually(lambda: problem(context) == "unreachable", 20, "the problem")
    with pytest.raises(BackendError, match="the helper is not there"):
        model.infer(sample(PICTURE))
    began = time.monotonic()
    model.close()
    assert time.monotonic() - began < 5


def test_a_pipeline_that_is_gone_has_no_problem(folder: Path, context: Context) -> None:
    """Its helper had accepted, and said nothing until the connection was given up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "s"))
        listener.listen(1)
        listener.settimeout(20)
        model = made(context, folder / "s", timeout_s=30)
        with listener.accept()[0]:
            model.close()
            context.health.forget("pipelines.p")
        eventually(lambda: not any("helper" in thread.name for thread in threading.enumerate()), 20, "its end")
    assert problem(context) == ""
