"""A scripted agent backend over real HTTP."""
