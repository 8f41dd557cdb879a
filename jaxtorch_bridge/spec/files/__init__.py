"""Contract files: found, read, migrated and written."""
