"""The database below the stores: engines, connections, errors, tables, migrations."""
