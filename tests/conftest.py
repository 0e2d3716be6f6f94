"""Options of the suite, how many workers run it, and the promise that it leaves nothing behind."""

import contextlib
import fcntl
import gc
import importlib.util
import os
import shutil
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import blocking
import forked

TESTS = Path(__file__).parent
SHM = Path("/dev/shm")
LONGEST_ID = 80  # characters of one value within the name of a test
CROWDS = tuple(  # files whose tests are many processes that compute: never two at once, or all others starve
    f"tests/{name}"
    for name in (
        "integration/test_model_approval.py",
        "integration/test_upgrade.py",
        "localdev/demo/test_demo.py",
    )
)
LONGEST = (  # begin the names of the first to run, so that no worker ends alone with one of them
    "localdev/demo/test_demo.py",
    "model_updater/test_updater.py",
    "model_store/test_bundles.py",
    "inferencer/test_component.py",
    "localdev/core/test_nucleus_rules.py",
    "localdev/cloud/test_builds.py",
    "edgeml/test_install",
    "localdev/cloud/test_cloud.py",
    "edge_impulse_runner/test_component.py",
    "localdev/core/test_cli.py",
    "serial_scraper/test_component.py",
    "integration/test_through_sudo.py",
    "monitor/test_access.py",
    "monitor/test_report.py",
    "monitor/test_door.py",
    "scripts/test_deploy",
    "log_shipper/test_privileged",
    "test_suite.py",
    "inferencer/test_tracking.py",
    "log_shipper/test_crashes.py",
    "log_shipper/test_delivery.py",
    "edge_impulse_runner",
    "camera_capture",
    "integration",
    "monitor",
    "cloud",
    "localdev",
    "log_shipper",
    "serial_scraper",
    "inferencer",
)
WORKERS_PER_CORE = 3  # half of what tests take is waiting: for time-outs, restarts, processes that start
MOST_WORKERS = 6  # beyond that, the longest file decides
WORTHWHILE = 8  # files; for fewer, workers take longer to start than they save

SELDOM = 50_000  # new objects until the next look for garbage, which takes a tenth of the suite at Python's own 700

LEFT_BEHIND = 10  # pytest's exit code for what no single test is to blame for: running one again would not show it

shared_before = pytest.StashKey[set[Path]]()
left_behind = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the tests that take minutes")


def pytest_configure() -> None:
    ours, found = TESTS.parent / "components" / "edgeml", importlib.util.find_spec("edgeml")
    if ours.is_dir() and (found is None or found.submodule_search_locations != [str(ours)]):
        raise pytest.UsageError(f"the components of this tree are not installed in {sys.prefix}: run ./scripts/setup")
    # A shell that starts us in the background ignores Ctrl-C for us, and what we start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _find_python_itself()
    gc.disable()  # nothing of what is collected may be forgotten: a fifth of the time goes into looking


def _find_python_itself() -> None:
    """A `python3` of pyenv is a shell script, which takes longer to start than Python."""
    found, own = shutil.which("python3"), Path(sys.base_prefix, "bin")
    if found and (own / "python3").exists():
        with Path(found).open("rb") as file:
            if file.read(2) == b"#!":
                os.environ["PATH"] = os.pathsep.join([str(own), os.environ["PATH"]])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers for `--numprocesses=auto`: 0 where one process does better or its output is wanted."""
    chosen = any(config.getoption(option, False) for option in ("keyword", "markexpr", "lf", "trace", "soak"))
    files = sum(len([*Path(path).rglob("test_*.py")]) if Path(path).is_dir() else 1 for path in config.args)
    cores = len(os.sched_getaffinity(0))
    if chosen or config.getoption("capture") == "no" or files < WORTHWHILE or cores < 2:
        return 0
    return min(WORKERS_PER_CORE * cores, MOST_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist=loadfile`, with all CROWDS taken for one file."""
    from xdist.scheduler import LoadFileScheduling

    class Schedule(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "crowds" if file in CROWDS else file

    return Schedule(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """In a fresh tree one worker compiles the tests and the others wait, for each would compile them all."""
    if not hasattr(session.config, "workerinput") or (TESTS / "integration" / "__pycache__").is_dir():
        return (yield)
    folder = os.open(TESTS, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(folder, fcntl.LOCK_SH)
            fcntl.flock(folder, fcntl.LOCK_UN)
        return (yield)
    finally:
        os.close(folder)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes and long texts are counted, not shown: made anew by each worker, as archives, they differ between them."""
    return argname if isinstance(val, bytes) or (isinstance(val, str) and len(val) > LONGEST_ID) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        skip = pytest.mark.skip(reason="takes minutes: ./scripts/test --soak")
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(skip)
    if hasattr(config, "workerinput"):  # short files last, so that no worker ends alone with a long one
        ranks = [str(TESTS / name) for name in LONGEST]
        items.sort(
            key=lambda item: next((n for n, top in enumerate(ranks) if str(item.path).startswith(top)), len(ranks))
        )


def pytest_collection_finish(session: pytest.Session) -> None:
    """What tests deploy is built and installed before they begin: in a fresh tree that may take longer than a test."""
    gc.enable()
    gc.freeze()  # tests that look for garbage are spared ten thousand items
    gc.set_threshold(SELDOM)
    if (
        any("built" in getattr(item, "fixturenames", ()) for item in session.items)
        and not session.config.option.collectonly
    ):
        from localdev import workspace

        workspace.prepare()


def pytest_runtest_setup() -> None:
    if "botocore.session" in sys.modules:  # once a test has imported it
        forked.share_what_botocore_reads()


def _runs_on() -> Iterator[str]:
    """What of this process' children and threads keeps machine or Python busy after the last test."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            waited_for = child.status() != psutil.STATUS_ZOMBIE
            yield f"a process is left: {child.cmdline()}" if waited_for else f"{child.pid} was not waited for"
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            yield f"a thread is left: {thread}"


@pytest.fixture(scope="session", autouse=True)
def processes_start_at_once() -> Iterator[None]:
    lambdas: Any = sys.modules.get("localdev.cloud.lambdas")  # once a module of tests has imported it
    with forked.forking(), pytest.MonkeyPatch.context() as patch:
        if lambdas:
            patch.setattr(lambdas, "popen", forked.popen)
        yield


@pytest.fixture(scope="session")
def watch_of_loops(request: pytest.FixtureRequest) -> Iterator[blocking.Watch]:
    with blocking.watched() as watch:
        yield watch
    request.config.stash[left_behind] += watch.take()  # by what ended after the last test


@pytest.fixture(autouse=True)
def no_loop_is_blocked(watch_of_loops: blocking.Watch) -> Iterator[None]:
    """Fails a test in which an event loop waits."""
    yield
    found = watch_of_loops.take()
    assert not found, "an event loop was blocked, by:\n" + "\n".join(found)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a worker reports. Text that UTF-8 cannot hold, as names of files in a captured log, would end the run."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_sendable(each) for each in value)
    return value


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[shared_before] = _shared_memory()
    session.config.stash[left_behind] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended, and says what it leaves."""
    node.config.stash[left_behind] += getattr(node, "workeroutput", {}).get("left", [])


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fails the run if it leaves anything, shared memory once every worker has ended, since they see each other's."""
    yield
    left = session.config.stash[left_behind]
    left += _runs_on()
    to_tell: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if to_tell is not None:  # a worker's
        to_tell["left"] = left
        return
    if "CI" in os.environ:  # elsewhere other programs come and go
        before = session.config.stash[shared_before]
        new = [path for path in _shared_memory() - before if path.stat().st_uid == os.getuid()]
        left += [f"shared memory is left: {path}" for path in new]
    if left:
        session.exitstatus = LEFT_BEHIND
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        reporter.write_line("\n" + "\n".join(left), red=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows what tests believe without a record (`record_property("believed", ...)`)."""
    for report in terminalreporter.stats.get("passed", []):
        for key, value in report.user_properties:
            if key == "believed":
                terminalreporter.line(f"believed, {value}")


def _shared_memory() -> set[Path]:
    return set(SHM.iterdir()) if SHM.is_dir() else set()
