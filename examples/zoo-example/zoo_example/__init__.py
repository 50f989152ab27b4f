"""Example: a token mixer for the zoo. Importing this package loads no torch; `zoo_example.layers` does."""
