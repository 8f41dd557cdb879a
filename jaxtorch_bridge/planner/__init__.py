"""Contract, static arguments and abstract arrays to a frozen `CallPlan`; pure functions."""
