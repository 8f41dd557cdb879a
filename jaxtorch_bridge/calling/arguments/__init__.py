"""The arguments of a call: sorted, checked, copied, written to; its random key."""
