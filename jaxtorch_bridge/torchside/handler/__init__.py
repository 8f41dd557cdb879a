"""Where torch meets the native handler: threads, streams, settings, failures."""
