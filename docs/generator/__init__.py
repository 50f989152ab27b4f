"""What docs/generate.py is made of: each module turns one part of the code into Markdown."""
