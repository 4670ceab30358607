"""TLS files that cannot be used, and settings that do not fit together."""

import ssl

import pytest
from pydantic import ValidationError

from tests.certificates import Authority
from uhm_common.errors import UhmError
from uhm_common.settings import CommonSettings
from uhm_common.tls import ClientTls, ServerTls


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ca", name="ours")


def test_whole_files(authority):
    pair = authority.sign("server")
    plain = ServerTls(certificate=pair.certificate, key=pair.key)
    mutual = ServerTls(certificate=pair.certificate, key=pair.key, client_ca=authority.ca)
    assert plain.context().verify_mode is ssl.CERT_NONE
    assert mutual.context().verify_mode is ssl.CERT_REQUIRED
    assert mutual.context().minimum_version is ssl.TLSVersion.TLSv1_2
    assert mutual.credentials() is not None
    assert ClientTls(ca=authority.ca, certificate=pair.certificate, key=pair.key).credentials() is not None


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", [None, b"not PEM"])
def test_files_that_a_server_cannot_use(authority, tmp_path, broken, content):
    pair = authority.sign("server")
    file = tmp_path / "broken.pem"
    if content is not None:
        file.write_bytes(content)
    given = {"certificate": pair.certificate, "key": pair.key, "client_ca": authority.ca, broken: file}
    with pytest.raises(UhmError, match=r"broken\.pem"):
        ServerTls(**given).credentials()


def test_a_key_of_another_certificate(authority):
    pair, other = authority.sign("server"), authority.sign("other")
    with pytest.raises(UhmError, match=r"other\.key"):
        ServerTls(certificate=pair.certificate, key=other.key).context()


def test_authorities_that_a_client_cannot_use(tmp_path):
    with pytest.raises(UhmError, match=r"none\.pem"):
        ClientTls(ca=tmp_path / "none.pem").credentials()


def test_in_the_clear_unless_told_otherwise():
    settings = CommonSettings()
    assert settings.server_tls is None
    assert settings.services_tls is None


def test_what_is_told(tmp_path):
    settings = CommonSettings(
        tls_certificate=tmp_path / "c", tls_key=tmp_path / "k", tls_client_ca=tmp_path / "a", services_ca=tmp_path / "s"
    )
    assert settings.server_tls == ServerTls(certificate=tmp_path / "c", key=tmp_path / "k", client_ca=tmp_path / "a")
    assert settings.services_tls == ClientTls(ca=tmp_path / "s")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["tls_certificate"], "UHM_TLS_KEY"),
        (["tls_key"], "UHM_TLS_CERTIFICATE"),
        (["tls_client_ca"], "UHM_TLS_CLIENT_CA"),
        (["services_ca", "services_key"], "UHM_SERVICES_CERTIFICATE"),
        (["services_certificate", "services_key"], "UHM_SERVICES_CA"),
    ],
)
def test_half_of_it(tmp_path, given, named):
    with pytest.raises(ValidationError, match=named):
        CommonSettings(**{name: tmp_path / name for name in given})
