"""The worker: takes builds from the queue and makes images."""
