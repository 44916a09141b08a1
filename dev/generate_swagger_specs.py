#!/usr/bin/env python3
"""Writes the OpenAPI document of the gateway as openapi.json and openapi.yaml.

    dev/generate_swagger_specs.py --output-dir openapi

The folder is made when it is missing; a relative one is taken from where the script is called. Any
Python 3 can start it: it goes on in the project's environment, which it sets up first.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"


def enter_environment() -> None:
    """Start again with the project's own Python, unless this is it."""
    if Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        return
    # Its progress lines are not what this script prints.
    subprocess.run(["bash", str(ROOT / "dev/setup"), "--no-dev"], check=True, stdout=sys.stderr)  # noqa: S603, S607
    python = str(ENVIRONMENT / "bin/python")
    os.execv(python, [python, str(Path(__file__).resolve()), *sys.argv[1:]])  # noqa: S606


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the OpenAPI document.")
    parser.add_argument("--output-dir", type=Path, default=Path("openapi"), help="default: %(default)s")
    output_dir = parser.parse_args().output_dir
    enter_environment()

    # Only the project's environment has these.
    import yaml

    from agent_gateway.app import create_app
    from agent_gateway.settings import Settings

    # The document depends on the code alone, not on the settings of whoever writes it.
    settings = Settings.model_construct()
    document = create_app(settings).openapi()
    output_dir.mkdir(parents=True, exist_ok=True)
    texts = {
        "openapi.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        "openapi.yaml": yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100),
    }
    for name, text in texts.items():
        path = output_dir / name
        path.write_text(text, encoding="utf-8")
        print(path.resolve())


if __name__ == "__main__":
    main()
