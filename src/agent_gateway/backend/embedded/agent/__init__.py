"""Agents of pydantic-ai: the built-in one, and somebody's own.

Importing a module of this room loads the framework (seconds).
"""
