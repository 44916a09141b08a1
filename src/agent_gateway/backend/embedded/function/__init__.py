"""Agent functions: somebody's async generator that takes a turn and yields its steps."""
