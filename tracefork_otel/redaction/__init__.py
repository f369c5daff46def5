"""What is replaced before anything is recorded: secrets always, and what the user's rules name."""
