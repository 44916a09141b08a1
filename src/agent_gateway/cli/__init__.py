"""The command line: `agent-gateway`, and `python -m agent_gateway`."""

import sys

from agent_gateway.cli.commands import app
from agent_gateway.errors import ConfigError, ObjectError, StoreError


def main() -> None:
    """Run the command line; wrong settings are reported in one line, without a traceback."""
    try:
        app(prog_name="agent-gateway")
    except ConfigError as error:
        _fail(str(error))
    except StoreError as error:
        _fail(f"the database cannot be used: {error}")
    except ObjectError as error:
        _fail(f"the file store cannot be used: {error}")


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
