"""Lowerings of operations on arrays whose sizes follow from values, by what they are at most."""
