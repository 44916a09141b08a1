"""The built-in backend: agents that run in this process, and a server that offers the same over HTTP.

Importing this package is cheap. The agent framework, which takes seconds to import, is loaded when an
`EmbeddedBackend` is built.
"""

from agent_gateway.backend.embedded.backend import DEMO_PACE, EmbeddedBackend, check_model

__all__ = ["DEMO_PACE", "EmbeddedBackend", "check_model"]
