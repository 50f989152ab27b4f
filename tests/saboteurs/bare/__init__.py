"""A plugin whose package has no card."""
