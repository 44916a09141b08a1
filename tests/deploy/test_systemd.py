"""The systemd unit: keys and values that systemd knows, time to drain, and paths that fit together."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from agent_gateway.settings import Settings
from tests.support.proxies import DEPLOY, replaced

UNIT: Final = DEPLOY / "systemd/agent-gateway.service"
PROGRAM: Final = "/opt/agent-gateway/bin/agent-gateway"
MISTAKEN: Final = ("Security.Delegate", "Security.UMaskOW")
"""Where the linter is wrong: this service needs no Delegate, and it misreads the umask 0077."""


def unit() -> dict[str, list[str]]:
    """The values of each key."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def lint(path: Path) -> list[str]:
    """What the linter does not like, without its two mistakes."""
    command = [sys.executable, "-m", "systemdlint", "--norootfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if not any(f"[{mistake}]" in line for mistake in MISTAKEN)]


def test_the_linter_finds_nothing() -> None:
    assert lint(UNIT) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("KillMode=mixed", "KillMode=mixd"),
        ("ProtectSystem=strict", "ProtectSystem=stricter"),
        ("NoNewPrivileges=", "NoNewPrivilege="),
    ],
)
def test_the_linter_finds_mistakes(tmp_path: Path, right: str, wrong: str) -> None:
    (path := tmp_path / UNIT.name).write_text(replaced(UNIT.read_text(), {right: wrong}))
    assert lint(path) != []


def test_systemd_takes_it_where_it_is_installed(tmp_path: Path) -> None:
    """As one process, and as one of several. Without a systemd here, only the linter has looked."""
    (program := tmp_path / "agent-gateway").write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = replaced(UNIT.read_text(), {PROGRAM: str(program)})
    (tmp_path / "agent-gateway.service").write_text(text)
    (tmp_path / "agent-gateway@.service").write_text(text)
    if analyze := shutil.which("systemd-analyze"):
        for name in ("agent-gateway.service", "agent-gateway@8000.service"):
            command = [analyze, "verify", str(tmp_path / name)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")


def test_it_has_time_to_drain_and_gets_one_signal() -> None:
    found = unit()
    assert found["KillSignal"] == ["SIGTERM"]
    assert found["KillMode"] == ["mixed"], "else workers get the signal twice, which ends the drain"
    [seconds] = found["TimeoutStopSec"]
    assert int(seconds) >= Settings.model_fields["drain_seconds"].default + 10
    assert found["Restart"] == ["on-failure"]
    assert found["StartLimitIntervalSec"] == ["0"], "tries until the database is there"


def test_only_its_own_user_reads_and_only_its_own_folder_is_written() -> None:
    found = unit()
    [folder] = found["StateDirectory"]
    assert found["StateDirectoryMode"] == ["0700"]
    assert found["UMask"] == ["0077"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["User"] == found["Group"] == ["agent-gateway"]
    assert found["WorkingDirectory"] == [f"/var/lib/{folder}"]
    assert "ReadWritePaths" not in found


def test_it_sets_what_the_gateway_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The name of an instance is its port; without one it is empty, and the port is the usual one."""
    monkeypatch.chdir(tmp_path)
    found = unit()
    [given] = found["Environment"]
    for instance, port in (("", 8000), ("8001", 8001)):
        for name, value in re.findall(r"(\w+)=(\S*)", given):
            monkeypatch.setenv(name, value.replace("%i", instance))
        settings = Settings.read()
        assert settings.port == port
        assert [str(settings.data_dir)] == found["WorkingDirectory"]
    assert found["ExecStart"] == [f"{PROGRAM} serve"]
    assert found["ExecStartPre"] == [f"{PROGRAM} migrate"]
