"""Live turns of this process: their logs, their owner, their leases."""
