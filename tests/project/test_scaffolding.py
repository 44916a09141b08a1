"""The files around the code do what they say: scripts, Dockerfile, compose file, pytest settings."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

SCRIPTS = [path for path in (ROOT / "dev").iterdir() if path.suffix != ".py"]


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_scripts_are_executable_bash_that_stops_at_errors(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", script], check=True)


def test_one_version_of_uv_everywhere() -> None:
    (setup,) = re.findall(r"UV_VERSION=(\S+)", (ROOT / "dev/setup").read_text())
    (image,) = re.findall(r"uv==(\S+)", (ROOT / "Dockerfile").read_text())
    assert setup == image


@pytest.mark.parametrize(
    ("body", "allow", "code"),
    [
        ("def test_it(): pass", "", 0),
        ("def test_it(): pass\ndef test_away(): pytest.skip('no')", "", 1),
        ("def test_it(): pass\ndef test_away(): pytest.skip('no')", "1", 0),
        ("def test_it(): pass\n@pytest.mark.xfail\ndef test_bug(): assert 0", "", 1),
        ("pytest.importorskip('no_such_module')\ndef test_it(): pass", "", 1),
    ],
    ids=["none", "skip", "allowed", "xfail", "module"],
)
def test_a_skipped_test_fails_the_run(tmp_path: Path, body: str, allow: str, code: int) -> None:
    (tmp_path / "test_other.py").write_text("def test_runs(): pass\n")
    (tmp_path / "test_x.py").write_text(f"import pytest\n{body}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.support.no_skips",
            f"--rootdir={tmp_path}",
            "-c",
            "pytest.ini",
            ".",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_ALLOW_SKIPS": allow},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout
    assert ("skipped tests fail the run" in run.stdout) == (code == 1)


# --- the compose file


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    return loaded


def test_compose_file_waits_for_a_healthy_and_migrated_database() -> None:
    services = compose()["services"]
    assert services.keys() == {"gateway", "migrate", "postgres"}
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["migrate"]["command"] == ["migrate"]
    assert services["gateway"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_compose_file_hardens_the_gateway_and_lets_it_drain() -> None:
    services = compose()["services"]
    for service in (services["gateway"], services["migrate"]):
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        for secret in ("AGENT_GATEWAY_SECRET_KEY", "AGENT_GATEWAY_API_KEY"):
            assert service["environment"][secret].startswith(f"${{{secret}:?"), "has no default"
    gateway = services["gateway"]
    assert (
        int(gateway["stop_grace_period"].removesuffix("s"))
        > gateway["environment"]["AGENT_GATEWAY_DRAIN_SECONDS"]
    )
    assert "data:/data" in gateway["volumes"]
    assert all(":" in service["image"] for service in services.values() if "build" not in service)
    assert all(port.startswith("127.0.0.1:") for port in services["postgres"]["ports"])


# --- the image


@dataclass
class Stage:
    """What one FROM of a Dockerfile leaves behind."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    others: dict[str, list[str]] = field(default_factory=dict)


class Image:
    """Runs the steps of the Dockerfile in order in a folder, where no Docker engine is at hand.

    `folder/root` stands for `/` of the stage that is being built: the absolute paths of the image are
    mapped into it. The base image is a fresh virtual environment; the image's user is the one of the test.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.base = folder / "python"
        self.stages: dict[str, Stage] = {}
        self.stage = Stage(self.root)
        subprocess.run([sys.executable, "-m", "venv", self.base], check=True)

    def build(self) -> None:
        for instruction, text in instructions(ROOT / "Dockerfile"):
            match instruction:
                case "FROM":
                    self._begin(text.split())
                case "ENV":
                    for name, value in (pair.split("=", 1) for pair in shlex.split(text)):
                        self.stage.env[name] = self.mapped(value).replace("$PATH", self.environ()["PATH"])
                case "WORKDIR":
                    self.stage.workdir = text
                    self.path(".").mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(text.split())
                case "RUN":
                    self.run(["sh", "-ec", self.mapped(text)])
                case _:
                    self.stage.others.setdefault(instruction, []).append(text)

    def _begin(self, words: list[str]) -> None:
        """Start a stage; the one before gives up the place of `/`, as its files do in a real build."""
        if self.root.exists():
            self.stage.folder = self.folder / f"stage-{len(self.stages)}"
            self.root.rename(self.stage.folder)
        self.root.mkdir()
        self.stage = Stage(self.root)
        self.stages[words[2] if len(words) > 1 else "image"] = self.stage

    def _copy(self, words: list[str]) -> None:
        source, ignore = ROOT, shutil.ignore_patterns("__pycache__")
        if words[0].startswith("--from="):
            source = self.stages[words.pop(0).removeprefix("--from=")].folder
            ignore = None
        *names, target = words
        for name in names:
            origin = source / name.lstrip("/")
            destination = self.path(target)
            if origin.is_dir():
                shutil.copytree(origin, destination, symlinks=True, ignore=ignore)
            else:
                shutil.copy(origin, destination / origin.name)
            if source == ROOT:
                assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()

    def path(self, name: str) -> Path:
        return self.root / self.stage.workdir.lstrip("/") / name

    def mapped(self, text: str) -> str:
        inside = re.sub(r"(?<![\w./-])/(?=(app|data)\b)", f"{self.root}/", text)
        return inside.replace("10001:10001", f"{os.getuid()}:{os.getgid()}").replace("0.0.0.0", "127.0.0.1")

    def environ(self) -> dict[str, str]:
        foreign = ("UV_", "PYTHON", "VIRTUAL_ENV", "AGENT_GATEWAY_", "PYTEST_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env["PATH"] = f"{self.base / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return env | self.stage.env

    def run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.path("."),
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=170,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def command(self, instruction: str) -> list[str]:
        (text,) = self.stage.others[instruction]
        words: list[str] = json.loads(text[text.index("[") :])
        return [self.mapped(word) for word in words]

    def entrypoint(self) -> list[str]:
        program, *arguments = self.command("ENTRYPOINT")
        found = shutil.which(program, path=self.environ()["PATH"])
        assert found is not None, program
        return [found, *arguments]


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        if line:
            instruction, _, text = line.partition(" ")
            yield instruction, text.strip()


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    run = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    image = Image(tmp_path_factory.mktemp("image"))
    image.build()
    return image


def test_the_steps_of_the_dockerfile_give_a_locked_and_compiled_installation(image: Image) -> None:
    assert "serve" in image.run([*image.entrypoint(), "--help"])
    (package,) = image.root.glob("app/.venv/lib/python*/site-packages/agent_gateway")
    assert (package / "_alembic" / "env.py").is_file()
    assert list(package.glob("__pycache__/errors.*.pyc")), "bytecode is compiled at build time"
    assert not list(package.parent.glob("pytest*")), "no development tools"
    assert not (image.root / "app" / "src").exists()


def test_the_user_of_the_image_is_a_number_and_not_root(image: Image) -> None:
    assert image.stage.others["USER"] == ["10001:10001"]
    assert image.stage.others["VOLUME"] == ["/data"]
    assert image.stage.others["STOPSIGNAL"] == ["SIGTERM"]


def test_the_image_serves_is_healthy_and_ends_at_sigterm(image: Image) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        image.stage.env["AGENT_GATEWAY_PORT"] = str(probe.getsockname()[1])
    before = sorted(image.root.glob("app/**"))
    check = image.command("HEALTHCHECK")
    log = image.folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*image.entrypoint(), *image.command("CMD")],
            cwd=image.path("."),
            env=image.environ(),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(
            check, cwd=image.path("."), env=image.environ(), capture_output=True, check=False
        ).returncode:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        server.send_signal(signal.SIGTERM)
        # uvicorn raises the signal once more when it is done with everything.
        assert server.wait(timeout=60) in (0, -signal.SIGTERM), log.read_text()
    finally:
        server.kill()
        server.wait()
    assert list((image.root / "data").iterdir()), "what is kept is kept in the volume"
    assert sorted(image.root.glob("app/**")) == before, "nothing else is written"
