"""Checks of what a contract claims and only its author knows."""

from .batching import check_batching as check_batching
from .sharding import check_sharding as check_sharding

__all__ = ["check_batching", "check_sharding"]
