"""What a torch function closes over: found, digested, watched and locked."""
