"""The backend side: everything that knows the run protocol."""
