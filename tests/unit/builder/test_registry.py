"""The registry's client and source, against a registry that misbehaves as told."""
# ruff: noqa: ARG002 - a stand-in's signatures are those of what it stands for

from __future__ import annotations

import asyncio
import gzip
import json
from functools import partial

import httpx
import pytest
import zstandard

from tests.unit.builder import fake_registry as fake
from uhm_builder.errors import (
    ContentMismatch,
    InvalidPlatform,
    LayerTooLarge,
    NotInRegistry,
    RateLimited,
    RegistryDenied,
    RegistryUnreachable,
    UnsupportedImage,
)
from uhm_builder.layers import LayerMaker
from uhm_builder.sources import challenge as challenge_module
from uhm_builder.sources import registry as registry_module
from uhm_builder.sources import responses as responses_module
from uhm_builder.sources.challenge import Authorizer, Credentials, load_credentials, parse_challenge
from uhm_builder.sources.platforms import TargetPlatform, parse_platform
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

    async def run(reference: str, *, mirrors=None, credentials=None, maker=maker, platform=""):
        client = RegistryClient(mirrors=mirrors or {}, credentials=credentials or {})
        clients.append(client)
        reporter = Heard()
        target = TargetPlatform.of(platform, architecture="amd64")
        source = RegistrySource(parse_reference(reference), client=client, target=target, reporter=reporter)
        resolved = await source.resolve()
        layers = await source.convert(maker)
        return resolved, layers, reporter

    yield run
    for client in clients:
        await client.close()


@pytest.fixture
async def log_in():
    client = RegistryClient(mirrors={}, credentials={})
    yield client.log_in
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
        ({"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, "schema 1"),
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


async def test_a_registry_without_ranges_sends_it_all_again(registry, pull, layer):
    registry.put_image("app", "v1", [(layer, layer)])
    registry.ranges = False
    registry.fail[f"/v2/app/blobs/{fake.digest_of(layer)}"] = ["3000000", "2000000", "9000000"]

    _, layers, _ = await pull(f"{registry.host}/app:v1")

    assert layers[0].digest == fake.digest_of(layer)


async def test_what_came_before_a_cut_is_not_asked_for_again(registry, pull, layer):
    registry.put_image("app", "v1", [(layer, layer)])
    path = f"/v2/app/blobs/{fake.digest_of(layer)}"
    registry.fail[path] = ["700000", "700000"]  # less than a piece each

    await pull(f"{registry.host}/app:v1")

    ranges = [request.headers.get("range") for request in registry.requests if request.path == path]
    assert ranges == [None, "bytes=700000-", "bytes=1400000-"]


async def test_a_body_that_trickles_is_given_up(registry, pull, layer, monkeypatch):
    monkeypatch.setattr(responses_module, "PIECE_SECONDS", 0.2)
    registry.put_image("app", "v1", [(layer, layer)])

    async def trickle(writer, *_args, **_more):
        writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 10240000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.05)

    await_answer = registry.send

    async def send(writer, status, body, *args, **more):
        slow = len(body) > len(layer) // 2
        return await (trickle(writer) if slow else await_answer(writer, status, body, *args, **more))

    registry.send = send
    with pytest.raises(RegistryUnreachable, match="did not come within"):
        await pull(f"{registry.host}/app:v1")


async def test_redirects_without_end_are_given_up(registry, pull):
    registry.redirect["/v2/app/manifests/v1"] = f"{registry.url}/v2/app/manifests/v1"

    with pytest.raises(RegistryUnreachable, match="again and again"):
        await pull(f"{registry.host}/app:v1")


def index_of(*entries: dict) -> dict:
    return {"mediaType": fake.OCI_INDEX, "manifests": list(entries)}


def platform(architecture: str, system: str = "linux", **more: str) -> dict:
    return {"platform": {"os": system, "architecture": architecture, **more}}


async def test_indexes_in_an_index_are_followed(registry, pull, layer):
    ours = registry.put_image("app", "ours", [(layer, layer)])
    inner = registry.put_manifest("app", "inner", index_of({**ours, **platform("amd64")}), fake.OCI_INDEX)
    other = registry.put_manifest("app", "none", index_of(), fake.OCI_INDEX)
    registry.put_manifest("app", "v1", index_of(other, inner), fake.OCI_INDEX)

    _, layers, _ = await pull(f"{registry.host}/app:v1")

    assert layers[0].diff_id == fake.digest_of(layer)


async def test_indexes_without_end_are_given_up(registry, pull):
    inner = [registry.put_manifest("app", f"i{n}", index_of() | {"n": n}, fake.OCI_INDEX) for n in range(20)]
    registry.put_manifest("app", "v1", index_of(*inner), fake.OCI_INDEX)

    with pytest.raises(UnsupportedImage, match="more than 15 indexes"):
        await pull(f"{registry.host}/app:v1")


async def test_what_is_attached_to_an_image_is_passed_over(registry, pull, layer):
    ours = registry.put_image("app", "ours", [(layer, layer)])
    attached = {"digest": "sha256:" + "0" * 64, "size": 1, "mediaType": fake.OCI_MANIFEST}
    entries = [
        {**attached, **platform("amd64"), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        {**attached, **platform("amd64"), "artifactType": "application/vnd.example.signature"},
        {**attached, **platform("amd64"), "mediaType": "application/vnd.example.unknown"},
        {**attached, **platform("unknown", "unknown")},
        {**ours, **platform("amd64")},
    ]
    registry.put_manifest("app", "v1", index_of(*entries), fake.OCI_INDEX)

    _, layers, _ = await pull(f"{registry.host}/app:v1")

    assert layers[0].diff_id == fake.digest_of(layer)


@pytest.mark.parametrize("wanted", ["linux/arm64", "linux/aarch64", "windows/amd64"])
async def test_a_platform_that_no_machine_runs_is_refused_with_what_there_is(registry, pull, layer, wanted):
    ours = registry.put_image("app", "plain", [(layer, layer)])
    entries = [{**ours, **platform("amd64")}, {**ours, **platform("arm64", variant="v8")}]
    registry.put_manifest("app", "v1", index_of(*entries), fake.OCI_INDEX)

    with pytest.raises(UnsupportedImage, match=r"run linux/amd64, not .*made for linux/amd64, linux/arm64/v8\."):
        await pull(f"{registry.host}/app:v1", platform=wanted)
    with pytest.raises(UnsupportedImage, match=r"made for linux/amd64\."):
        await pull(f"{registry.host}/app:plain", platform=wanted)


async def test_a_variant_is_found(registry, pull, layer, make_tar):
    second = make_tar({"v3": b"x"})
    ours = registry.put_image("app", "v1", [(layer, layer)])
    newer = registry.put_image("app", "v3", [(second, second)])
    entries = [{**newer, **platform("amd64", variant="v3")}, {**ours, **platform("amd64")}]
    registry.put_manifest("app", "all", index_of(*entries), fake.OCI_INDEX)

    for wanted, expected in [
        ("", layer),
        ("linux/amd64", layer),
        ("linux/amd64/v1", layer),
        ("linux/amd64/v3", second),
    ]:
        _, layers, _ = await pull(f"{registry.host}/app:all", platform=wanted)
        assert layers[0].diff_id == fake.digest_of(expected)
    with pytest.raises(UnsupportedImage, match="not made for linux/amd64/v2"):
        await pull(f"{registry.host}/app:all", platform="linux/amd64/v2")


async def test_a_variant_of_an_image_without_an_index(registry, pull, layer):
    registry.put_image("app", "plain", [(layer, layer)])

    await pull(f"{registry.host}/app:plain", platform="linux/amd64/v1")
    with pytest.raises(UnsupportedImage, match=r"not made for linux/amd64/v3, only for linux/amd64\."):
        await pull(f"{registry.host}/app:plain", platform="linux/amd64/v3")


@pytest.mark.parametrize("text", ["linux", "linux/", "linux/amd64/v2/x", "a b/c", "/amd64"])
def test_what_is_no_platform_is_refused(text):
    with pytest.raises(InvalidPlatform, match="OS/ARCHITECTURE"):
        parse_platform(text)


@pytest.mark.parametrize(
    ("layer_record", "said"),
    [
        ({"urls": ["https://example.com/layer"]}, "must not be distributed"),
        ({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}, "must not be distributed"),
        ({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"}, "must not be distributed"),
        ({"mediaType": "application/vnd.in-toto+json"}, "no file system"),
        ({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"}, "no file system"),
    ],
)
async def test_layers_that_are_none_are_refused(registry, pull, layer, layer_record, said):
    registry.put_image("app", "v1", [(layer, layer)])
    manifest = json.loads(registry.content["/v2/app/manifests/v1"][1])
    manifest["layers"][0] |= layer_record
    registry.put_manifest("app", "v1", manifest)

    with pytest.raises(UnsupportedImage, match=said):
        await pull(f"{registry.host}/app:v1")
    assert not [request for request in registry.requests if "/blobs/" in request.path]


async def test_more_layers_than_a_disk_holds_are_refused_at_once(registry, pull, make_tar):
    empty = make_tar({})
    registry.put_image("app", "v1", [(empty, empty)] * 251)

    with pytest.raises(UnsupportedImage, match="251 layers; a disk holds 250"):
        await pull(f"{registry.host}/app:v1")


@pytest.mark.parametrize("config", [{"Labels": ["x"]}, ["x"], {"ExposedPorts": [1, "x"]}])
async def test_a_configuration_of_another_form_is_refused(registry, pull, config):
    registry.put_image("app", "v1", [], config=config)

    with pytest.raises(UnsupportedImage, match="not in the form"):
        await pull(f"{registry.host}/app:v1")


async def test_a_mirror_that_denies_is_passed_over(registry, pull, layer):
    registry.put_image("app", "v1", [(layer, layer)])
    async with fake.FakeRegistry() as mirror:
        mirror.challenge = 'Basic realm="mirror"'

        await pull(f"{registry.host}/app:v1", mirrors={registry.host: mirror.url})


async def test_an_identity_token_is_exchanged(registry, pull, layer):
    registry.put_image("app", "v1", [(layer, layer)])
    registry.token, registry.challenge = "t0ken", f'Bearer realm="{registry.url}/token",service="s"'

    await pull(f"{registry.host}/app:v1", credentials={registry.host: Credentials("", identity_token="refresh")})

    assert [request.method for request in registry.requests if request.path == "/token"] == ["POST"]


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


async def test_a_token_without_end_is_refused(registry, pull):
    registry.challenge = f'Bearer realm="{registry.url}/token"'
    registry.token = "x" * (2 << 20)

    with pytest.raises(RegistryUnreachable, match="which gives tokens, answers too much"):
        await pull(f"{registry.host}/app:v1")


async def test_a_token_that_does_not_come_is_given_up(registry, pull, monkeypatch):
    monkeypatch.setattr(challenge_module, "ANSWER_SECONDS", 0.2)
    registry.challenge = f'Bearer realm="{registry.url}/token"'

    async def trickle(_request, writer):
        body = json.dumps({"token": registry.token, "padding": "x" * 40}).encode()
        await registry.send(writer, 200, body, cut=0)
        for number in range(len(body)):
            writer.write(body[number : number + 1])
            await asyncio.sleep(0.02)
        return True

    registry.give_token = trickle
    with pytest.raises(RegistryUnreachable, match="which gives tokens, does not answer"):
        await pull(f"{registry.host}/app:v1")


@pytest.mark.parametrize("body", [b"[]", b"{}", b"[" * 100_000, b'{"token": "a", "expires_in": 1' + b"0" * 400 + b"}"])
async def test_what_is_no_token_is_said(registry, pull, body):
    registry.challenge = f'Bearer realm="{registry.url}/token"'
    registry.give_token = lambda _request, writer: registry.send(writer, 200, body)

    with pytest.raises(RegistryUnreachable, match="answered without a token"):
        await pull(f"{registry.host}/app:v1")


@pytest.mark.parametrize("realm", ["http://[", "http://a:99999999/", "http://"])
async def test_a_realm_that_is_no_address_is_said(registry, pull, realm):
    registry.challenge = f'Bearer realm="{realm}"'

    with pytest.raises(RegistryUnreachable, match="which gives tokens, does not answer"):
        await pull(f"{registry.host}/app:v1")


async def test_a_registry_that_answers_a_login_without_end_is_refused(registry, log_in):
    registry.content["/v2/"] = ("application/json", b" " * (2 << 20))

    with pytest.raises(RegistryUnreachable, match="answers too much"):
        await log_in(registry.host)


async def test_a_registry_that_sends_a_login_around_is_named(registry, log_in):
    registry.redirect["/v2/"] = f"{registry.url}/v2/"

    with pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1:\d+ does not answer: .*redirects"):
        await log_in(registry.host)


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
