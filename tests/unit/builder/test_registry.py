"""The registry's client and source, against a registry that misbehaves as told."""
# ruff: noqa: ARG002 - a stand-in's signatures are those of what it stands for

from __future__ import annotations

import gzip
import json
from functools import partial

import httpx
import pytest
import zstandard

from tests.unit.builder import fake_registry as fake
from uhm_builder.errors import (
    ContentMismatch,
    LayerTooLarge,
    NotInRegistry,
    RateLimited,
    RegistryDenied,
    RegistryUnreachable,
    UnsupportedImage,
)
from uhm_builder.layers import LayerMaker
from uhm_builder.sources import registry as registry_module
from uhm_builder.sources.challenge import Authorizer, Credentials, load_credentials, parse_challenge
from uhm_builder.sources.pull import RegistrySource
from uhm_builder.sources.reference import parse_reference
from uhm_builder.sources.registry import RegistryClient, is_loopback


class Heard:
    """A Reporter that keeps what it hears."""

    def __init__(self):
        self.done = {}

    def progress(self, *, stage, layer, done, total):
        self.done[layer] = (done, total)

    def output(self, line):
        raise AssertionError(line)


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr(registry_module, "PAUSES", (0.01, 0.01))


@pytest.fixture
async def registry():
    async with fake.FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def pull(maker):
    """Resolves and converts a reference; answers (resolved, layers)."""
    clients = []

    async def run(reference: str, *, mirrors=None, credentials=None, maker=maker):
        client = RegistryClient(mirrors=mirrors or {}, credentials=credentials or {})
        clients.append(client)
        reporter = Heard()
        source = RegistrySource(parse_reference(reference), client=client, architecture="amd64", reporter=reporter)
        resolved = await source.resolve()
        layers = await source.convert(maker)
        return resolved, layers, reporter

    yield run
    for client in clients:
        await client.close()


@pytest.fixture
def layer(make_tar):
    return make_tar({"a": bytes(range(256)) * 40_000})


@pytest.mark.parametrize(
    "compress", [partial(gzip.compress, mtime=0), zstandard.compress, bytes], ids=["gzip", "zstd", "plain"]
)
async def test_layers_become_blobs_whatever_they_are_compressed_with(
    registry, pull, layer, make_tar, compress, artifacts
):
    second = make_tar({"b": b"y"})
    put = registry.put_image("app", "v1", [(compress(layer), layer), (compress(second), second)])

    resolved, layers, heard = await pull(f"{registry.host}/app:v1")

    assert resolved.digest == put["digest"]
    assert [made.diff_id for made in layers] == [fake.digest_of(layer), fake.digest_of(second)]
    assert [made.digest for made in layers] == [fake.digest_of(compress(layer)), fake.digest_of(compress(second))]
    assert all(artifacts.layer(made.diff_id).stat().st_size == made.size for made in layers)
    assert heard.done[layers[0].digest] == (len(compress(layer)), len(compress(layer)))


async def test_a_layer_that_comes_twice_is_one_blob(registry, pull, layer):
    registry.put_image("app", "v1", [(layer, layer), (layer, layer)])

    _, layers, _ = await pull(f"{registry.host}/app:v1")

    assert layers[0] == layers[1]
    assert len([request for request in registry.requests if fake.digest_of(layer) in request.path]) == 1


async def test_the_configuration_is_read(registry, pull, layer):
    registry.put_image(
        "app",
        "v1",
        [(layer, layer)],
        config={
            "Entrypoint": ["/a"],
            "Cmd": None,
            "Env": ["A=b"],
            "WorkingDir": "/w",
            "User": "1:2",
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "StopSignal": "SIGQUIT",
            "Labels": {"k": "v"},
            "Volumes": {"/data": {}},
        },
    )

    resolved, _, _ = await pull(f"{registry.host}/app:v1")

    config = resolved.config
    assert (config.entrypoint, config.cmd, config.env) == (("/a",), (), ("A=b",))
    assert (config.working_dir, config.user, config.stop_signal) == ("/w", "1:2", "SIGQUIT")
    assert config.exposed_ports == ("443/tcp", "80/tcp")
    assert (config.labels, config.volumes, config.architecture) == ({"k": "v"}, ("/data",), "amd64")


async def test_an_index_is_followed_to_this_platform(registry, pull, layer):
    ours = registry.put_image("app", "ours", [(layer, layer)])
    other = registry.put_image("app", "other", [], architecture="arm64")
    registry.put_manifest(
        "app",
        "v1",
        {
            "mediaType": fake.OCI_INDEX,
            "manifests": [
                {**other, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
                {**ours, "platform": {"os": "linux", "architecture": "amd64"}},
                {**ours, "platform": {"os": "unknown", "architecture": "unknown"}},
            ],
        },
        fake.OCI_INDEX,
    )

    resolved, layers, _ = await pull(f"{registry.host}/app:v1")

    assert layers[0].diff_id == fake.digest_of(layer)
    assert resolved.digest == fake.digest_of(registry.content["/v2/app/manifests/v1"][1])


async def test_a_platform_that_is_missing_lists_those_there_are(registry, pull):
    other = registry.put_image("app", "other", [], architecture="arm64")
    platforms = [{"os": "linux", "architecture": "arm64", "variant": "v8"}, {"os": "windows", "architecture": "amd64"}]
    index = {"mediaType": fake.OCI_INDEX, "manifests": [{**other, "platform": platform} for platform in platforms]}
    registry.put_manifest("app", "v1", index, fake.OCI_INDEX)

    with pytest.raises(UnsupportedImage, match=r"linux/amd64, only for linux/arm64/v8, windows/amd64"):
        await pull(f"{registry.host}/app:v1")


async def test_an_image_for_another_platform_without_an_index_is_refused(registry, pull):
    registry.put_image("app", "v1", [], architecture="s390x")

    with pytest.raises(UnsupportedImage, match="linux/s390x"):
        await pull(f"{registry.host}/app:v1")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, "type"),
        ({"mediaType": fake.OCI_MANIFEST, "layers": []}, "not an image manifest"),
        (
            {
                "mediaType": fake.OCI_MANIFEST,
                "config": {
                    "mediaType": "application/vnd.cncf.helm.config.v1+json",
                    "digest": "sha256:" + "0" * 64,
                    "size": 1,
                },
                "layers": [],
            },
            "not a container image but application/vnd.cncf.helm",
        ),
        (
            {"mediaType": fake.OCI_MANIFEST, "config": {"digest": "sha256:../../x", "size": 1}, "layers": []},
            "not a SHA-256 digest",
        ),
    ],
)
async def test_what_is_no_image_is_said(registry, pull, record, said):
    registry.put_manifest("app", "v1", record, record["mediaType"])

    with pytest.raises(UnsupportedImage, match=said):
        await pull(f"{registry.host}/app:v1")


async def test_what_is_not_there_is_named(registry, pull):
    with pytest.raises(NotInRegistry, match=f"There is no {registry.host}/app:v9"):
        await pull(f"{registry.host}/app:v9")


async def test_a_token_is_got_once_for_all_layers(registry, pull, layer, make_tar):
    others = [make_tar({f"n{number}": b"x"}) for number in range(4)]
    registry.put_image("app", "v1", [(tar, tar) for tar in [layer, *others]])
    registry.token = "t0ken"
    registry.challenge = f'Bearer realm="{registry.url}/token",service="test",scope="repository:app:pull"'

    await pull(f"{registry.host}/app:v1")

    asked = [request for request in registry.requests if request.path.startswith("/token")]
    assert len(asked) == 1
    assert "scope=repository%3Aapp%3Apull" in asked[0].path
    assert "service=test" in asked[0].path


@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_credentials_are_used(registry, pull, layer, kind):
    registry.put_image("app", "v1", [(layer, layer)])
    registry.basic = fake.basic("me", "secret")
    registry.token = "t0ken"
    bearer = f'Bearer realm="{registry.url}/token",service="test"'
    registry.challenge = bearer if kind == "bearer" else 'Basic realm="test"'

    await pull(f"{registry.host}/app:v1", credentials={registry.host: Credentials("me", "secret")})


@pytest.mark.parametrize("credentials", [None, Credentials("me", "wrong")])
@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_access_denied_says_what_to_do(registry, pull, kind, credentials):
    registry.basic, registry.token = fake.basic("me", "secret"), "t0ken"
    registry.challenge = f'Bearer realm="{registry.url}/token"' if kind == "bearer" else 'Basic realm="test"'
    given = {registry.host: credentials} if credentials else {}

    with pytest.raises(RegistryDenied) as error:
        await pull(f"{registry.host}/app:v1", credentials=given)

    assert "UHM_REGISTRY_AUTH_FILE" in str(error.value)
    assert "secret" not in str(error.value)


async def test_a_blob_goes_on_where_it_broke_off(registry, pull, layer):
    registry.put_image("app", "v1", [(layer, layer)])
    path = f"/v2/app/blobs/{fake.digest_of(layer)}"
    registry.fail[path] = ["3000000", "2000000"]

    await pull(f"{registry.host}/app:v1")

    ranges = [request.headers.get("range") for request in registry.requests if request.path == path]
    assert ranges[0] is None
    assert len(ranges) == 3
    assert all(wanted.startswith("bytes=") for wanted in ranges[1:])


async def test_a_blob_that_is_always_cut_is_given_up(registry, pull, layer, artifacts):
    registry.put_image("app", "v1", [(layer, layer)])
    registry.fail[f"/v2/app/blobs/{fake.digest_of(layer)}"] = ["10"] * 10

    with pytest.raises(RegistryUnreachable):
        await pull(f"{registry.host}/app:v1")

    assert list(artifacts.root.glob("staging/*")) == []
    assert list(artifacts.root.glob("layers/*")) == []


async def test_a_blob_with_another_digest_is_refused(registry, pull, layer, artifacts):
    registry.put_image("app", "v1", [(layer, layer)])
    path = f"/v2/app/blobs/{fake.digest_of(layer)}"
    changed = bytearray(layer)
    changed[600] ^= 1
    registry.content[path] = ("x", bytes(changed))

    with pytest.raises(ContentMismatch, match="not sha256:"):
        await pull(f"{registry.host}/app:v1")

    assert list(artifacts.root.glob("layers/*")) == []


async def test_content_with_another_diff_id_is_refused(registry, pull, layer, make_tar, artifacts):
    registry.put_image("app", "v1", [(gzip.compress(make_tar({"other": b"x"})), layer)])

    with pytest.raises(ContentMismatch, match="configuration says"):
        await pull(f"{registry.host}/app:v1")

    assert list(artifacts.root.glob("layers/*")) == []


async def test_a_manifest_with_another_digest_is_refused(registry, pull, layer):
    put = registry.put_image("app", "v1", [(layer, layer)])
    registry.content[f"/v2/app/manifests/{put['digest']}"] = (fake.OCI_MANIFEST, b"{}")

    with pytest.raises(ContentMismatch, match="manifest"):
        await pull(f"{registry.host}/app@{put['digest']}")


async def test_a_manifest_without_end_is_refused(registry, pull):
    registry.content["/v2/app/manifests/v1"] = (fake.OCI_MANIFEST, b" " * (5 << 20))

    with pytest.raises(UnsupportedImage, match="more than"):
        await pull(f"{registry.host}/app:v1")


async def test_a_decompression_bomb_ends_at_the_bound(registry, pull, make_tar, artifacts, mkfs):
    bomb = make_tar({"zeros": bytes(8 << 20)})
    registry.put_image("app", "v1", [(gzip.compress(bomb), bomb)])
    maker = LayerMaker(artifacts, mkfs=mkfs, max_bytes=1 << 20, parallel=1)

    with pytest.raises(LayerTooLarge):
        await pull(f"{registry.host}/app:v1", maker=maker)

    assert list(artifacts.root.glob("staging/*")) == []


async def test_a_redirect_to_another_host_gets_no_authorization(registry, pull, layer):
    registry.put_image("app", "v1", [(layer, layer)])
    registry.token = "t0ken"
    registry.challenge = f'Bearer realm="{registry.url}/token"'
    path = f"/v2/app/blobs/{fake.digest_of(layer)}"
    async with fake.FakeRegistry() as store:
        store.content["/elsewhere"] = ("x", layer)
        registry.redirect[path] = f"http://localhost:{store.host.rpartition(':')[2]}/elsewhere"

        await pull(f"{registry.host}/app:v1")

        assert [request.headers.get("authorization") for request in store.requests] == [None]


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_what_passes_is_tried_again(registry, pull, layer, status):
    registry.put_image("app", "v1", [(layer, layer)])
    registry.fail["/v2/app/manifests/v1"] = [status, status]

    await pull(f"{registry.host}/app:v1")


@pytest.mark.parametrize(
    ("status", "error"), [(500, RegistryUnreachable), (429, RateLimited), (418, RegistryUnreachable)]
)
async def test_what_does_not_pass_is_said(registry, pull, status, error):
    registry.fail["/v2/app/manifests/v1"] = [status] * 10

    with pytest.raises(error):
        await pull(f"{registry.host}/app:v1")


async def test_a_registry_that_is_not_there_is_named(pull):
    with pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1:1 does not answer"):
        await pull("127.0.0.1:1/app")


async def test_a_mirror_is_asked_first(registry, pull, layer):
    registry.put_image("library/app", "latest", [(layer, layer)])

    await pull("app", mirrors={"docker.io": registry.url})

    assert registry.requests[0].path == "/v2/library/app/manifests/latest"


@pytest.mark.parametrize("mirror", ["http://127.0.0.1:1", "empty"])
async def test_behind_the_mirror_is_the_registry(registry, pull, layer, mirror):
    registry.put_image("app", "v1", [(layer, layer)])
    async with fake.FakeRegistry() as empty:
        url = empty.url if mirror == "empty" else mirror

        await pull(f"{registry.host}/app:v1", mirrors={registry.host: url})


def test_challenges_are_read():
    challenge = parse_challenge('Bearer realm="https://a/t",service="s, x",scope="repository:a:pull,push",other=plain')

    assert challenge.scheme == "bearer"
    assert challenge.parameters["service"] == "s, x"
    assert challenge.parameters["scope"] == "repository:a:pull,push"
    assert challenge.parameters["other"] == "plain"


def test_credentials_are_in_dockers_form(tmp_path):
    path = tmp_path / "config.json"
    auths = {
        "https://index.docker.io/v1/": {"auth": fake.basic("hub", "a:b").removeprefix("Basic ")},
        "ghcr.io": {"username": "me", "password": "p"},
        "https://reg.example:5000/v2/": {"auth": fake.basic("x", "y").removeprefix("Basic ")},
        "empty.example": {},
    }
    path.write_text(json.dumps({"auths": auths}))

    found = load_credentials(path)

    assert found == {
        "docker.io": Credentials("hub", "a:b"),
        "ghcr.io": Credentials("me", "p"),
        "reg.example:5000": Credentials("x", "y"),
    }
    assert "a:b" not in repr(found)
    assert load_credentials(None) == {}


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("localhost:5000", True), ("127.0.0.1:5", True), ("[::1]:5000", True), ("127.9.9.9", True),
     ("example.com", False), ("10.0.0.1:5000", False), ("localhost.example", False)],
)  # fmt: skip
def test_loopback_is_spoken_to_in_plain_http(host, loopback):
    assert is_loopback(host) == loopback


async def test_no_token_is_asked_for_in_the_clear_for_a_secure_registry(registry):
    async with httpx.AsyncClient() as client:
        authorizer = Authorizer(client, credentials=Credentials("me", "secret"))
        answer = httpx.Response(
            401,
            headers={"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'},
            request=httpx.Request("GET", "https://registry.example/v2/"),
        )

        with pytest.raises(RegistryUnreachable, match="gives tokens"):
            await authorizer.answer(answer, scope="repository:a:pull")

    assert registry.requests == []
