"""The scripts of dev/ and .ci/ can be run, stop at errors, and use one version of uv."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPTS = [path for path in sorted((ROOT / "dev").iterdir()) if path.is_file() and path.suffix != ".py"]


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_a_script_stops_at_the_first_error(script: Path, tmp_path: Path) -> None:
    """Its first lines run, and then a command that fails, an unset variable, or a pipe that breaks."""
    head = script.read_text().partition("\ncd ")[0]
    for number, fault in enumerate(("false", 'echo "$UNSET_HERE"', "false | cat")):
        broken = tmp_path / f"{number}"
        broken.write_text(f"{head}\n{fault}\necho reached\n")
        broken.chmod(script.stat().st_mode)
        ran = subprocess.run([broken], check=False, capture_output=True, text=True)
        assert (ran.returncode != 0, ran.stdout) == (True, "")


def test_the_setup_and_the_image_use_the_same_uv() -> None:
    (setup,) = re.findall(r"UV_VERSION=(\S+)", (ROOT / "dev/setup").read_text())
    (image,) = re.findall(r"uv==(\S+)", (ROOT / "Dockerfile").read_text())
    assert setup == image
