"""What an exported program says of a call, so that another process can plan it.

Plain data, as programs may come from strangers: reading it imports nothing and calls nothing.
"""
