"""Components with wheels for aarch64, in an emulated Debian 12 arm64: install without network, start, health, stop.

Needs root, qemu-user-static with its binfmt_misc entry, debootstrap, unshare, and a network: the first run makes the
system in .cache/arm64, minutes. By hand, never in CI. Emulation fakes /proc/self/stat, so that the writer of a frame
ring looks dead to its readers there: nothing here reads a ring.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = ROOT / ".cache" / "arm64"
PLATFORM, PYTHON = "manylinux_2_28_aarch64", "3.11"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"  # its python3 is 3.11
BINFMT = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
BUILD_S, SYSTEM_S, INSTALL_S, START_S, ANSWER_S, STOP_S = 1200, 3600, 1800, 300, 300, 60

CLASSIFIER, PICTURES = "image_classifier", "sample_requester"
ANSWER = {"label": "espresso", "score": 0.951539}  # what x86-64 answers for the sample picture
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "camera_capture": {"cameras": {"c": {"type": "test_pattern", "width": 64, "height": 48, "fps": 2}}},
    "edge_impulse_linux": {},
    "edge_impulse_runner": {},
    "inferencer": {
        "pipelines": {
            "pictures": {
                "source": {"type": "request", "allowed_dirs": ["/smoke/pictures"]},
                "backend": {"type": "onnx", "model": "ImageClassifier", "path": "/smoke/classifier"},
            }
        }
    },
    "log_shipper": {},
    "model_updater": {},
    "monitor": {},
    "sample_requester": {"interval_s": 5},
    "serial_scraper": {"ports": {"p": {"device": "/dev/ttyNowhere*"}}},
}


class SmokeError(Exception):
    """What is missing or wrong, in a sentence."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/smoke-aarch64", description=__doc__)
    parser.add_argument("components", nargs="*", metavar="COMPONENT", help=f"default: {', '.join(CONFIGURATIONS)}")
    parser.add_argument("--system", type=Path, default=SYSTEM, help="folder of the emulated system (%(default)s)")
    options = parser.parse_args()
    chosen = options.components or list(CONFIGURATIONS)
    if unknown := set(chosen) - set(CONFIGURATIONS):
        parser.error(f"no component {', '.join(sorted(unknown))}")
    try:
        check_machine()
        make_system(options.system)
        failed = smoke(chosen, options.system)
    except (SmokeError, subprocess.TimeoutExpired) as error:
        print(f"scripts/smoke-aarch64: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def check_machine() -> None:
    """Raises SmokeError with all that is missing here."""
    missing = ["root"] if os.geteuid() else []
    tools = {"qemu-aarch64-static": "qemu-user-static", "debootstrap": "debootstrap", "unshare": "util-linux"}
    missing += [f"{tool} (apt-get install {package})" for tool, package in tools.items() if not shutil.which(tool)]
    if not BINFMT.exists() and not missing:
        mount = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"
        missing.append(f"{BINFMT} (apt-get install binfmt-support; {mount}; update-binfmts --enable qemu-aarch64)")
    elif BINFMT.exists() and not any(
        line.startswith("flags:") and "F" in line for line in BINFMT.read_text().splitlines()
    ):
        missing.append(f"{BINFMT} with the flag F, without which the interpreter is not found below another root")
    if missing:
        raise SmokeError(f"needs {'; '.join(missing)}")


def make_system(system: Path) -> None:
    """A small Debian arm64 with python3, made once; a half-made one is made anew."""
    if (system / "made").exists():
        return
    print(f"making Debian {SUITE} arm64 in {system}, some minutes", flush=True)
    shutil.rmtree(system, ignore_errors=True)
    system.mkdir(parents=True)
    command = ["debootstrap", "--arch=arm64", "--variant=minbase", "--include=python3,python3-venv"]
    with (system / "log").open("wb") as log:
        done = subprocess.run(
            [*command, SUITE, str(system / "root"), MIRROR], stdout=log, stderr=log, timeout=SYSTEM_S, check=False
        )
    if done.returncode:
        raise SmokeError(f"debootstrap failed, see {system / 'log'}")
    (system / "made").touch()


def smoke(chosen: list[str], system: Path) -> list[str]:
    """Tries each component in a folder of the system that goes afterwards; the names of those that failed."""
    with tempfile.TemporaryDirectory(prefix="smoke-", dir=system / "root") as name:
        place = Path(name)
        if "inferencer" in chosen:
            _unpack(build(CLASSIFIER, place), place / "classifier")
            _unpack(build(PICTURES, place), place / "unpacked")
            shutil.copytree(place / "unpacked" / PICTURES / "pictures", place / "pictures")
        failed = []
        for package in chosen:
            began = time.monotonic()
            try:
                archive = build(package, place, "--wheels", PLATFORM, "--python", PYTHON)
                told = try_one(package, archive, system / "root", place)
            except (SmokeError, subprocess.TimeoutExpired) as error:
                failed.append(package)
                told = f"FAILED: {error}"
            print(f"{package:20} {told} ({time.monotonic() - began:.0f} s in all)", flush=True)
    return failed


def build(package: str, place: Path, *options: str) -> Path:
    """A copy of the built artifact."""
    command = [sys.executable, str(ROOT / "scripts" / "build.py"), *options, package]
    done = subprocess.run(command, cwd=ROOT, timeout=BUILD_S, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SmokeError(f"{' '.join(command[1:])}: {done.stderr.strip()[-500:]}")
    (archive,) = (ROOT / done.stdout.strip()).glob("artifacts/*/*/*.zip")
    return Path(shutil.copy(archive, place))


def _unpack(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(target)


def try_one(package: str, archive: Path, root: Path, place: Path) -> str:
    """Install, start, health, for the inferencer an answer, stop. How it went; SmokeError says what did not."""
    work = place / "work" / package
    work.mkdir(parents=True)
    _unpack(archive, work / "artifact")
    (work / "config.json").write_text(json.dumps(CONFIGURATIONS[package]).replace("/smoke/", f"/{place.name}/"))
    inside = Path("/", work.relative_to(root))
    try:
        began = time.monotonic()
        install = ["/usr/bin/python3", "-I", f"{inside}/artifact/edgeml/install.py"]
        with emulated(root, inside, install, work / "install.log") as process:
            process.communicate(timeout=INSTALL_S)
        if process.returncode:
            raise SmokeError(f"install ended with {process.returncode}: {_tail(work / 'install.log')}")
        installed = time.monotonic() - began
        words = [f"{inside}/venv/bin/python", "-I", "-u", f"{inside}/artifact", "--standalone"]
        words += ["--config", f"{inside}/config.json", "--root", f"/{place.name}", "--work", str(inside)]
        with emulated(root, inside, words, work / "log") as process:
            told = watch(package, process, work / "log", f"/{place.name}/pictures")
        return f"installed in {installed:.0f} s, {told}"
    finally:
        shutil.rmtree(work)


@contextlib.contextmanager
def emulated(root: Path, folder: Path, words: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A program below `root`, without network; its mounts go with it, and it with the block."""
    script = 'mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/dev/shm" && exec chroot "$0" "$@"'
    inner = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *words]
    command = ["unshare", "--mount", "--net", "sh", "-c", script, str(root), *inner]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "AWS_IOT_THING_NAME": "emulated"}
    environment["AWS_REGION"] = "us-east-1"  # as a core gives it
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def watch(package: str, process: subprocess.Popen[str], log: Path, pictures: str) -> str:
    """Waits for the start, the health and the answer, then stops it. SmokeError."""
    heard: dict[str, Any] = {}
    reader = threading.Thread(target=_listen, args=[process.stdout, heard], daemon=True)
    reader.start()

    def until(what: str, seconds: float, probe: Callable[[], Any]) -> float:
        began = time.monotonic()
        while not probe():
            if process.poll() is not None:
                raise SmokeError(f"ended with {process.returncode} before {what}: {_tail(log)}")
            if time.monotonic() - began > seconds:
                raise SmokeError(f"no {what} in {seconds} s: {_tail(log)}")
            time.sleep(0.2)
        return time.monotonic() - began

    took = until("start", START_S, lambda: "started component=" in log.read_text(errors="replace"))
    until("health", START_S, lambda: any(topic.startswith("edgeml/health/") for topic in list(heard)))
    told = f"started in {took:.0f} s"
    if package == "camera_capture":
        until("frame", ANSWER_S, lambda: "edgeml/camera/c/frame" in heard)
    if package == "inferencer":
        told += f", {_ask(process, pictures, heard, until)}"
    process.terminate()
    code = process.wait(STOP_S)
    if code:
        raise SmokeError(f"SIGTERM: exit code {code}, expected 0: {_tail(log)}")
    reader.join(STOP_S)
    return f"{told}, ended with 0"


def _listen(stdout: Any, heard: dict[str, Any]) -> None:
    for line in stdout:
        message = json.loads(line)
        heard[message["topic"]] = message.get("payload")


def _ask(process: subprocess.Popen[str], pictures: str, heard: dict[str, Any], until: Callable[..., float]) -> str:
    assert process.stdin is not None  # noqa: S101  (it is a pipe)
    request = {"image_dir": pictures, "fname": "coffee.png", "request_id": "1"}
    process.stdin.write(json.dumps({"channel": "local", "topic": "local/inference", "payload": request}) + "\n")
    process.stdin.flush()
    until("answer", ANSWER_S, lambda: "local/result" in heard)
    answer = heard["local/result"]
    found = {"label": answer.get("label"), "score": round(answer.get("score", 0.0), 6)}
    if found != ANSWER:
        raise SmokeError(f"answered {answer}, expected {ANSWER}")
    return "{label} {score}".format(**found)


def _tail(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-5:])[-800:]


if __name__ == "__main__":
    sys.exit(main())
