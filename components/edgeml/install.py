"""A component's `install` step: a virtual environment in the work folder, from the hashed lock in the artifact.

Run by the device's own python3 as a script, so it uses the standard library alone. The nucleus runs install at
every start: when lock and interpreter have not changed this does nothing and needs no network. An artifact that
carries `wheels/` never needs one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

MINIMUM = (3, 11)
PIP_TIMEOUT_S = 840  # just below the recipes' install timeout, so that the reason is ours and not "killed"


def main() -> None:
    if sys.version_info < MINIMUM:
        raise SystemExit(f"python3 is {sys.version.split()[0]}, {'.'.join(map(str, MINIMUM))} or newer is needed")
    artifact = Path(__file__).resolve().parent.parent
    lock = artifact / "requirements.lock"
    venv = Path.cwd() / "venv"
    stamp = venv / "installed"
    wanted = hashlib.sha256(lock.read_bytes() + repr((sys.version_info[:3], sys.prefix)).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    sys.stdout.write(f"INFO install making {venv} from {lock}\n")
    sys.stdout.flush()
    if venv.is_symlink():
        venv.unlink()
    shutil.rmtree(venv, ignore_errors=True)
    _make(venv, lock, artifact / "wheels")
    # Written last: an interrupted install has no stamp and is done again.
    stamp.write_text(wanted)


def _make(venv: Path, lock: Path, wheels: Path) -> None:
    offline = ["--no-index", "--find-links", str(wheels)] if wheels.is_dir() else []
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    # Only wheels: nothing is compiled on the device and no package's setup code runs.
    pip += ["--only-binary", ":all:", "--require-hashes", "--no-deps", *offline, "-r", str(lock)]
    # The core's PYTHONPATH must not reach pip.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, timeout=PIP_TIMEOUT_S, env=environment)
        subprocess.run(pip, check=True, timeout=PIP_TIMEOUT_S, env=environment)
    except (subprocess.SubprocessError, OSError) as error:
        raise SystemExit(f"install of {lock} failed: {error}") from error


if __name__ == "__main__":
    main()
