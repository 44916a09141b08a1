"""The rows of the embedded agent's runs and their events (docs/design/durability.md, R19)."""
