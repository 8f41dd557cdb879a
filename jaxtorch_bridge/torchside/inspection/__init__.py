"""What code reads and what objects hold, looked at without running any of it."""
