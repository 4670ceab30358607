"""What the gateway is told from outside."""

import pytest
from pydantic import ValidationError

from uhm_gateway.__main__ import main
from uhm_gateway.settings import GatewaySettings


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
