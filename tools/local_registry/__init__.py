"""A container registry on loopback with real images in it, for machines that reach no other.

`ensure_images` makes the images once (a Debian base, and the Dockerfiles under `examples/`) and keeps them as a
registry's data below `build/registry`; `registry` serves that, which takes a fraction of a second and needs no engine.

    ensure_images()
    with registry() as url:
        ...  # url/v2/library/nginx/manifests/latest
"""

from tools.local_registry.images import ensure_images
from tools.local_registry.server import registry

__all__ = ["ensure_images", "registry"]
