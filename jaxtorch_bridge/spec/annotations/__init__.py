"""A function's annotations as a contract, and whether both agree."""
