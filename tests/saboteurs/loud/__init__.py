"""A plugin whose module imports torch."""
