"""What the command ``jaxtorch`` is made of: one folder a subcommand, and `cli`."""
