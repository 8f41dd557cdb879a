"""One call against its contract: what comes in, what torch returns, which keywords it has.

Works on shapes and dtype names alone, so that it can run while tracing and without a device.
"""
