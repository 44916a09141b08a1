"""The plugins of pytest that every run has (tests/support/)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


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


def test_a_worker_that_is_killed_when_it_leaves_has_saved_what_it_measured(tmp_path: Path) -> None:
    (tmp_path / "measured_module.py").write_text("def run():\n    return 1\n")
    (tmp_path / "test_x.py").write_text(
        "import atexit, os\nimport measured_module\n"
        "def test_it():\n    measured_module.run()\n    atexit.register(os.kill, os.getpid(), 9)\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    settings = "[run]\nparallel = true\npatch = subprocess\ninclude = */measured_module.py\n"
    (tmp_path / ".coveragerc").write_text(settings)

    def coverage(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "coverage", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    options = [
        "-p",
        "tests.support.measured",
        "--numprocesses",
        "1",
        f"--rootdir={tmp_path}",
        "-c",
        "pytest.ini",
    ]
    coverage("run", "-m", "pytest", *options, ".")
    coverage("combine", "--quiet")
    assert "100%" in coverage("report")
