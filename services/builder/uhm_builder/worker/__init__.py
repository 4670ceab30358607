"""The worker: takes builds and publications from their queues."""
