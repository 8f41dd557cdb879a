"""Checks of what a contract claims and only its author knows, and of what a backend computes."""

from .backends import check_backend as check_backend
from .batching import check_batching as check_batching
from .sharding import check_sharding as check_sharding
from .streams import check_streams as check_streams

__all__ = ["check_backend", "check_batching", "check_sharding", "check_streams"]
