"""The tools of the built-in agent: MCP servers, HTTP APIs, Python functions, and humans."""
