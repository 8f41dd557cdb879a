"""What is known of particular operators of torch."""
