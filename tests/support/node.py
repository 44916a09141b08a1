"""Programs of the npm packages in tests/js, run as a developer of a front end runs them."""

import os
import subprocess
from pathlib import Path

from tests.support.paths import ROOT

NODE_MODULES = ROOT / "tests/js/node_modules"
# Nothing is sent home, and no network is needed.
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1", "CI": "true"}


def run_node(program: str, folder: Path, *arguments: str | Path) -> None:
    """Run a program of an npm package in a folder; it must end well."""
    command = [str(NODE_MODULES / ".bin" / program), *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **QUIET},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
