"""The scripts of dev/ and .ci/ can be run, stop at errors, and use one version of uv."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPTS = [path for path in (ROOT / "dev").iterdir() if path.suffix != ".py"]


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_scripts_are_executable_bash_that_stops_at_errors(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", script], check=True)


def test_the_setup_and_the_image_use_the_same_uv() -> None:
    (setup,) = re.findall(r"UV_VERSION=(\S+)", (ROOT / "dev/setup").read_text())
    (image,) = re.findall(r"uv==(\S+)", (ROOT / "Dockerfile").read_text())
    assert setup == image
