"""Where container images come from: registries, the Docker Engine, Dockerfiles."""
