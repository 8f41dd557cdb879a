"""What can go wrong with a recipe: nothing that leaves this library as it is."""

from __future__ import annotations


class NotDataError(Exception):
    """A call cannot be described as data; the text says what of it."""


class RecipeError(Exception):
    """A program's description of a call cannot be followed; the text says why."""
