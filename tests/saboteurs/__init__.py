"""A plugin of honest toys and of saboteurs: components that break one promise each (see `plugin.py`)."""
