"""`python -m agent_gateway`."""

from agent_gateway.cli import main

main()
