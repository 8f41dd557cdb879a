"""How torch captures graphs, and what the code is told meanwhile."""
