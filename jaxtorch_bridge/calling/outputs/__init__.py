"""What a call gives: found before it runs, and padded where its size follows from values."""
