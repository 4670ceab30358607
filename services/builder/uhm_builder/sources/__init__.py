"""Where images come from: registries, the Docker Engine, Dockerfiles, archives, storage locations, other images."""
