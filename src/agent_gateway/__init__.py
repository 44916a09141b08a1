"""Agent gateway: drives conversation turns against an agent backend and never loses one."""
