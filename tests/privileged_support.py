"""The folders of a core on which the log shipper is deployed, for tests of what runs there as root."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import yaml

from edgeml import install
from support import ROOT

NAME = "edgeml.LogShipper"
NOBODY = 65534
SHIPPER = ROOT / "components" / "log_shipper"
PROBE = """
import json, os, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps(dict(uid=os.getuid(), cwd=os.getcwd(), file=os.path.realpath(__file__), argv=sys.argv[1:],
    python=sys.prefix, path=sys.path, no_new_privs=status["NoNewPrivs"].strip(), token=os.environ.get("SVCUID"),
    socket=os.path.realpath(os.environ.get("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "")),
    files=sorted(os.listdir("."))), default=str))
"""
EVIL = "import os, sys\nopen(%r, 'a').write('%%d %%s\\n' %% (os.geteuid(), sys.argv))\n"


class Device:
    """A core's folders, as the Java nucleus leaves them after a deployment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o755)
        self.artifacts = root / "packages" / "artifacts" / NAME / "1.0.0"
        self.unpacked = root / "packages" / "artifacts-unarchived" / NAME / "1.0.0" / "log_shipper"
        self.work = root / "work" / NAME
        self.private = root / "private"
        self.loot = root / "loot"
        self.archive = self.artifacts / "log_shipper.zip"
        self.owner = NOBODY

    def deploy(self, note: str = "", *, owner: int = NOBODY) -> None:
        """Bring the artifact anew; all that other tests did to it is gone."""
        self.owner = owner
        for folder in (self.root / "packages", self.root / "work"):
            shutil.rmtree(folder, ignore_errors=True)
        self.loot.unlink(missing_ok=True)
        for folder in (self.artifacts, self.unpacked, self.work):
            folder.mkdir(parents=True)
        with zipfile.ZipFile(self.archive, "w") as archive:
            archive.writestr("__main__.py", f"{PROBE}\n# {note}")
            archive.writestr("requirements.lock", "# nothing\n")
            archive.writestr("wheels/none.txt", "")
            archive.writestr("log_shipper/__init__.py", "")
            archive.writestr("edgeml/__init__.py", "")
            archive.write(SHIPPER / "privileged.py", "log_shipper/privileged.py")
            archive.write(ROOT / "components" / "edgeml" / "install.py", "edgeml/install.py")
        with zipfile.ZipFile(self.archive) as archive:
            archive.extractall(self.unpacked)
        self.digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        for folder in (self.root / "packages", self.work):
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, owner, owner)
        self.work.chmod(0o700)

    def lend(self) -> None:
        """The environment that the install step would make for the artifact, in a second by pip."""
        lock = (self.unpacked / "requirements.lock").read_text()
        environment = self.private / f"venv-{install.key(lock.encode())}"
        venv.create(environment, symlinks=True)
        (environment / install.STAMP).write_text(lock)
        (self.private / "venv").symlink_to(environment.name)

    def step(
        self, step: str, recipe: dict[str, Any] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        recipe = recipe or yaml.load((ROOT / "recipes" / f"{NAME}.yaml").read_bytes(), yaml.CSafeLoader)
        script = recipe["Manifests"][0]["Lifecycle"][step]["Script"]
        for variable, value in (
            ("{artifacts:path}", self.artifacts),
            ("{artifacts:decompressedPath}", self.unpacked.parent),
            ("{kernel:rootPath}", self.root),
            ("{work:path}", self.work),
            ("SHA256_OF_ZIP", self.digest),
        ):
            script = script.replace(variable, str(value))
        return subprocess.run(
            ["sh", "-c", script],
            cwd=self.work,
            env={
                "PATH": os.environ["PATH"],
                "SVCUID": "token",
                "EDGEML_PRIVATE": str(self.private),
                "PYTHONPATH": str(self.work),
                "PIP_CONFIG_FILE": str(self.work / "pip.conf"),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def run(self) -> dict[str, Any]:
        done = self.step("run")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def forget(self) -> None:
        """Remove root's copies, but for the environment, which takes seconds to make."""
        for path in self.private.iterdir():
            if path.name.startswith("code-") or path.name.endswith(".zip") or path.name == "state":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def attack(self, *lines: str) -> None:
        """Python of the components' user; what it cannot do it leaves."""
        code = f"import os, shutil\nos.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})\n"
        code += "".join(f"try:\n    {line}\nexcept OSError: pass\n" for line in lines)
        subprocess.run([sys.executable, "-I", "-c", code], cwd="/", check=True, timeout=30)

    def evil(self) -> str:
        return EVIL % str(self.loot)


def untouched(device: Device) -> None:
    assert not device.loot.exists(), device.loot.read_text()
