"""Docker's grammar of references, as a table."""

from __future__ import annotations

import pytest

from uhm_builder.errors import InvalidReference
from uhm_builder.sources.reference import parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "path", "target", "shown"),
    [
        ("nginx", "docker.io", "library/nginx", "latest", "nginx:latest"),
        ("nginx:1.27", "docker.io", "library/nginx", "1.27", "nginx:1.27"),
        ("library/nginx", "docker.io", "library/nginx", "latest", "nginx:latest"),
        ("docker.io/nginx", "docker.io", "library/nginx", "latest", "nginx:latest"),
        ("docker.io/library/nginx:x", "docker.io", "library/nginx", "x", "nginx:x"),
        ("index.docker.io/nginx", "docker.io", "library/nginx", "latest", "nginx:latest"),
        ("bitnami/redis", "docker.io", "bitnami/redis", "latest", "bitnami/redis:latest"),
        ("library/a/b", "docker.io", "library/a/b", "latest", "library/a/b:latest"),
        ("ghcr.io/owner/name", "ghcr.io", "owner/name", "latest", "ghcr.io/owner/name:latest"),
        ("localhost/name", "localhost", "name", "latest", "localhost/name:latest"),
        ("localhost:5000/name:tag", "localhost:5000", "name", "tag", "localhost:5000/name:tag"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b", "latest", "127.0.0.1:5000/a/b:latest"),
        ("[::1]:5000/name", "[::1]:5000", "name", "latest", "[::1]:5000/name:latest"),
        ("Registry/name", "Registry", "name", "latest", "Registry/name:latest"),
        (f"nginx@{DIGEST}", "docker.io", "library/nginx", DIGEST, f"nginx@{DIGEST}"),
        (f"nginx:1.27@{DIGEST}", "docker.io", "library/nginx", DIGEST, f"nginx:1.27@{DIGEST}"),
        ("a__b.c-d---e", "docker.io", "library/a__b.c-d---e", "latest", "a__b.c-d---e:latest"),
        ("docker-daemon:nginx", "docker.io", "library/nginx", "latest", "docker-daemon:nginx:latest"),
        ("docker-daemon:me/app:v1", "docker.io", "me/app", "v1", "docker-daemon:me/app:v1"),
        ("docker.io/a.b/c", "docker.io", "a.b/c", "latest", "docker.io/a.b/c:latest"),
        ("docker.io/docker.io/c", "docker.io", "docker.io/c", "latest", "docker.io/docker.io/c:latest"),
        ("storage", "docker.io", "library/storage", "latest", "docker.io/library/storage:latest"),
        ("docker.io/docker-daemon:x", "docker.io", "library/docker-daemon", "x", "docker.io/library/docker-daemon:x"),
        ("n:" + "t" * 128, "docker.io", "library/n", "t" * 128, "n:" + "t" * 128),
    ],
)
def test_what_is_a_reference(text, registry, path, target, shown):
    reference = parse_reference(text)

    assert (reference.registry, reference.path, reference.target) == (registry, path, target)
    assert str(reference) == shown
    assert parse_reference(str(reference)) == reference
    assert reference.in_engine == text.startswith("docker-daemon:")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("Nginx", "lower-case: 'nginx'"),
        ("ghcr.io/Owner/name", "upper-case"),
        ("nginx:", "ends with a colon"),
        ("nginx:-x", "'-x' is not a tag"),
        ("nginx:" + "t" * 129, "is not a tag"),
        ("nginx@sha256:abc", "is not a digest"),
        ("nginx@md5:" + "ab" * 32, "is not a digest"),
        ("a//b", "is not the name of an image"),
        ("/nginx", "is not"),
        ("nginx/", "is not the name"),
        ("ng inx", "is not the name"),
        ("nginx ", "is not the name"),
        ("-nginx", "is not the name"),
        ("a___b", "is not the name"),
        ("a..b", "is not the name"),
        ("exa_mple.com/x", "is not the address of a registry"),
        ("x" * 256, "more than 255"),
        ("ab" * 32, "an image's id"),
        ("../../etc/passwd", "is not"),
        ("nginx\n", "is not the name"),
        ("https://nginx", "is not"),
        ("docker-daemon:", "is not the name"),
    ],
)
def test_what_is_not_says_what_is_right(text, said):
    with pytest.raises(InvalidReference) as error:
        parse_reference(text)

    assert said in str(error.value)


@pytest.mark.parametrize("repository", ["uhm-cache", "uhm-build", "library/uhm-cache", "index.docker.io/uhm-build"])
def test_what_the_engine_holds_of_builds_is_nobodys_to_take(repository):
    with pytest.raises(InvalidReference, match=r"holds of a build here.*Name the image that the build made"):
        parse_reference(f"docker-daemon:{repository}", tag="ab" * 32)
    with pytest.raises(InvalidReference, match="holds of a build here"):
        parse_reference(f"docker-daemon:{repository}@{DIGEST}")
    assert not parse_reference(repository).in_engine  # a registry may have such a one


def test_a_tag_may_be_given_beside_the_name():
    assert str(parse_reference("nginx", tag="1.27")) == "nginx:1.27"


@pytest.mark.parametrize("text", ["nginx:1.26", f"nginx@{DIGEST}"])
def test_a_tag_cannot_be_given_twice(text):
    with pytest.raises(InvalidReference, match="cannot be given beside it"):
        parse_reference(text, tag="1.27")


@pytest.mark.parametrize("tag", [":x", "a/b", "a b", "@x"])
def test_a_tag_beside_the_name_is_checked(tag):
    with pytest.raises(InvalidReference, match="is not a tag"):
        parse_reference("nginx", tag=tag)
