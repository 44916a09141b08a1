"""The chaos suite: real processes, real faults, and an offline check of everything that anybody saw."""
