"""Public JSON: what clients send and what they get, a module per resource."""
