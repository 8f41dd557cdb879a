"""A torch function evaluated abstractly or run once, and what it was seen to do."""
