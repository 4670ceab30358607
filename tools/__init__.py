"""What sets the project up and what its demo, tests and benchmarks share."""
