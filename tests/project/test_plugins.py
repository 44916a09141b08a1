"""A run with a skipped test fails (tests/support/no_skips.py)."""

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
