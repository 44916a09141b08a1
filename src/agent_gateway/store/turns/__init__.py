"""The rows of turns: begun by callers, driven and ended by their owner, followed by readers."""
