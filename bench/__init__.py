"""Measures the gateway beside yardsticks: `dev/bench --help`, docs/performance.md."""
