"""A plugin whose hook imports torch."""
