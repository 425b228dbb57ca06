"""What a person runs: check, verify, demo."""
