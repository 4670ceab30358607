"""Makes images out of container images and Dockerfiles."""
