"""Two versions of a contract: what changed for callers."""
