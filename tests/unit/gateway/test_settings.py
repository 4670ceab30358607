"""What the gateway is told from outside."""

import pytest
from pydantic import ValidationError

from uhm_gateway.__main__ import main
from uhm_gateway.limits.rate import Rate
from uhm_gateway.rest.transcoder import Policy
from uhm_gateway.settings import GatewaySettings
from uhm_gateway.upstream.upstreams import channel_options


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("UHM_ROUTES", "UHM_REST_PORT", "UHM_AUTH_ADDRESS", "UHM_DESCRIPTOR_SET", "UHM_HOST"):
        monkeypatch.delenv(name, raising=False)


def test_our_own_services_have_their_usual_places(monkeypatch):
    monkeypatch.setenv("UHM_AUTH_ADDRESS", "auth:1")
    monkeypatch.setenv("UHM_ROUTES", '{"uhmalguhm.machines.v1.MachineService": "machines:2"}')
    routes = GatewaySettings().all_routes()
    assert routes["uhmalguhm.auth.v1.AuthService"] == "auth:1"
    assert routes["uhmalguhm.machines.v1.MachineService"] == "machines:2"
    assert {routes[f"uhmalguhm.auth.v1.{name}"] for name in ("UserService", "ApiKeyService", "AuditService")} == {
        "auth:1"
    }
    assert "uhmalguhm.auth.v1.VerificationService" not in routes


def test_nothing_of_clients_is_believed_by_default():
    settings = GatewaySettings()
    assert settings.cors is None
    assert settings.policy == Policy()


def test_what_clients_may(monkeypatch):
    monkeypatch.setenv("UHM_ALLOWED_METADATA", '["Colour", "acme-*"]')
    monkeypatch.setenv("UHM_TRUSTED_PROXIES", '["10.0.0.0/8", "2001:db8::1"]')
    monkeypatch.setenv("UHM_PROXY_HEADER", "forwarded")
    monkeypatch.setenv("UHM_CORS_ORIGINS", '["https://console.example"]')
    settings = GatewaySettings()
    assert [settings.policy.metadata.allows(key) for key in ("colour", "acme-x", "other")] == [True, True, False]
    assert settings.policy.proxies.address("10.1.1.1", ["for=192.0.2.1"]) == "192.0.2.1"
    assert settings.policy.origins == ("https://console.example",)
    assert settings.cors is not None
    assert settings.cors.origins == settings.policy.origins


@pytest.mark.parametrize(
    ("given", "seconds"), [({}, 30), ({"descriptor_set": "x"}, 300), ({"services_keepalive_seconds": 60}, 60)]
)
def test_services_of_others_are_asked_less_often(given, seconds):
    """gRPC servers end a connection that asks three times in less than five minutes each, unless told otherwise."""
    settings = GatewaySettings(**given)
    assert settings.keepalive_seconds == seconds
    options = dict(channel_options(message_limit=1, keepalive_seconds=settings.keepalive_seconds))
    assert options["grpc.keepalive_time_ms"] == seconds * 1000


def test_credentials_are_not_for_every_origin():
    with pytest.raises(ValidationError, match="UHM_CORS_CREDENTIALS"):
        GatewaySettings(cors_origins=("*",), cors_credentials=True)


def test_metadata_from_the_command_line(monkeypatch):
    served = []
    monkeypatch.setattr("uhm_gateway.__main__.run_service", lambda _name, settings, _serve: served.append(settings()))
    main(["--allow-metadata", "colour", "--allow-metadata", "x-*"])
    assert served[0].allowed_metadata == ("colour", "x-*")


def test_another_api_has_only_the_routes_given(tmp_path):
    settings = GatewaySettings(descriptor_set=tmp_path, routes={"a.B": "c:1"})
    assert dict(settings.all_routes()) == {"a.B": "c:1"}


def test_loopback_unless_told_otherwise():
    assert GatewaySettings().host == "127.0.0.1"


@pytest.mark.parametrize("given", [{"rest_port": 70000}, {"routes": {"a.B": "nowhere"}}, {"body_limit": 0}])
def test_values_that_do_not_fit(given):
    with pytest.raises(ValidationError):
        GatewaySettings(**given)


@pytest.mark.parametrize("route", ["a.B", "a.B=", "a.B=host", "=host:1", "a.B=host:x"])
def test_a_malformed_route_is_wrong_usage(route, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--route", route])
    assert caught.value.code == 2
    assert "PACKAGE.SERVICE=HOST:PORT" in capsys.readouterr().err


def test_limits():
    settings = GatewaySettings(rate_per_address=10, rate_per_user=0, burst_seconds=1.55, head_limit=100)
    assert settings.capacity.address == Rate(per_second=10, burst=16)
    assert settings.capacity.user == Rate(per_second=0, burst=0)
    assert settings.client_limits.head_bytes == 100
    assert dict(settings.grpc_limits)["grpc.max_metadata_size"] == 100


@pytest.mark.parametrize(("routes", "share"), [({"a.B": "c:1"}, 1), ({"a.B": "c:1", "a.C": "c:1"}, 0.7)])
def test_a_service_shares_only_with_others(tmp_path, routes, share):
    assert GatewaySettings(descriptor_set=tmp_path, routes=routes).capacity.service_share == share


@pytest.mark.parametrize(("seconds", "expected"), [(None, None), (1.5, 1500)])
def test_grpc_connections_have_no_age_unless_told(seconds, expected):
    options = dict(GatewaySettings(grpc_connection_age_seconds=seconds).grpc_limits)
    assert options.get("grpc.max_connection_age_ms") == expected
