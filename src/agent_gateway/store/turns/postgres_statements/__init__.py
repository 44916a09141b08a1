"""The statements of common turns on Postgres: each decides about many turns at once, and then writes."""
