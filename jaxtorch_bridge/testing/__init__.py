"""Checks of what a contract claims and only its author knows."""

from .batching import check_batching as check_batching

__all__ = ["check_batching"]
