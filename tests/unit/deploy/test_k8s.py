"""The manifests fit their schemas and each other, and the services' settings."""

from __future__ import annotations

import base64
import copy
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uhm_auth.settings import AuthSettings
from uhm_builder.settings import BuilderSettings
from uhm_common.process import ProcessFailed
from uhm_common.vault import open_vault
from uhm_gateway.settings import GatewaySettings
from uhm_machines.settings import Settings as MachinesSettings

K8S = Path(__file__).parents[3] / "deploy" / "k8s"
SETTINGS = {
    "auth": AuthSettings,
    "builder": BuilderSettings,
    "builder-worker": BuilderSettings,
    "machines": MachinesSettings,
    "gateway": GatewaySettings,
}
DIRECTORIES = ["base", "overlays/single-node"]


@pytest.fixture(scope="module")
def validate():
    specification = importlib.util.spec_from_file_location("validate_k8s", K8S / "validate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def secrets(validate):
    return validate.documents_of(validate.secrets())


@pytest.fixture(scope="module")
def documents(validate):
    return validate.documents_of(validate.render(K8S / "overlays" / "single-node"))


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_everything_fits(validate, secrets, directory):
    assert validate.problems_of(validate.documents_of(validate.render(K8S / directory)) + secrets) == []


def test_with_kvm(validate, secrets, tmp_path):
    """The component that gives the device is used by nobody's overlay here."""
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "single-node"
    kustomization = overlay / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("# components:", "components:"))

    documents = validate.documents_of(validate.render(overlay))

    assert validate.problems_of(documents + secrets) == []
    with_kvm = {
        name
        for name, pod in validate.pod_specs(documents)
        if "devices.kubevirt.io/kvm" in pod["containers"][0]["resources"]["limits"]
    }
    assert with_kvm == {"Deployment/machines", "Deployment/builder-worker"}


def test_what_is_set_is_a_setting(validate, documents):
    """Every UHM_* that a pod gets is one that its service, or for what all get any service, knows and accepts."""
    (shared,) = [d["data"] for d in documents if d["kind"] == "ConfigMap" and "UHM_STATE_DIR" in d["data"]]
    for name, pod in validate.pod_specs(documents):
        settings = SETTINGS.get(name.partition("/")[2])
        if settings is None:
            continue
        own = {variable["name"]: variable.get("value", "") for variable in pod["containers"][0]["env"]}
        for variable in {**shared, **own}:
            assert variable.removeprefix("UHM_").lower() in settings.model_fields, (name, variable)
        values = {key.removeprefix("UHM_").lower(): value for key, value in {**shared, **own}.items() if value}
        settings(**values)


def test_every_pod_is_confined(validate, documents):
    for name, pod in validate.pod_specs(documents):
        context, container = pod["securityContext"], pod["containers"][0]
        assert context["runAsNonRoot"], name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert pod["automountServiceAccountToken"] is False, name
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name
        assert set(container["resources"]) == {"requests", "limits"}, name
        assert ":" in container["image"], name


@pytest.mark.parametrize("name", ["builder", "builder-worker"])
def test_both_sides_of_the_builder_open_appliances_reach_registries_and_share_keys(documents, name):
    (template,) = [
        document["spec"]["template"]
        for document in documents
        if (document["kind"], document["metadata"]["name"]) == ("Deployment", name)
    ]
    mounts = {mount["mountPath"]: mount["name"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in template["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }

    assert template["metadata"]["labels"]["uhmalguhm.io/needs-internet"] == "true"
    assert "/var/tmp" in mounts
    assert claims[mounts["/var/lib/uhmalguhm"]] == "state"


def test_strangers_do_not_get_in(documents, secrets):
    """Users are invited, passwords are hard to guess, and a stolen refresh token is noticed."""
    (auth,) = [d for d in documents if (d["kind"], d["metadata"]["name"]) == ("Deployment", "auth")]
    (secret,) = [s for s in secrets if s["metadata"]["name"] == "auth"]
    told = {each["name"].removeprefix("UHM_").lower(): each.get("value") for each in container(auth)["env"]}
    told["bootstrap_invitation"] = secret["stringData"]["bootstrap-invitation"]
    settings = AuthSettings(**{name: value for name, value in told.items() if value is not None})

    assert settings.registration == "invitation"
    assert (settings.password_min_length, settings.password_min_score) == (12, 3)
    assert settings.rotate_refresh_tokens
    assert "UHM_NATS_URL" in {each["name"] for each in container(auth)["env"]}
    assert auth["spec"]["template"]["metadata"]["labels"]["uhmalguhm.io/needs-nats"] == "true"


def test_the_auth_service_finds_its_key(documents, secrets, tmp_path):
    """The path that it is told is where the Secret is mounted, and what the Secret has is a key."""
    (auth,) = [d for d in documents if (d["kind"], d["metadata"]["name"]) == ("Deployment", "auth")]
    (secret,) = [s for s in secrets if s["metadata"]["name"] == "auth"]
    (volume,) = [v for v in auth["spec"]["template"]["spec"]["volumes"] if v["name"] == "keys"]
    (mount,) = [m for m in container(auth)["volumeMounts"] if m["name"] == "keys"]
    (item,) = volume["secret"]["items"]
    key = tmp_path / item["path"]
    key.write_bytes(base64.b64decode(secret["data"][item["key"]]))

    assert variable(auth, "UHM_KEY_FILE")["value"] == f"{mount['mountPath']}/{item['path']}"
    assert open_vault(key).open(open_vault(key).seal(b"x", purpose="p"), purpose="p") == b"x"


def test_every_installation_has_its_own_secrets(validate, secrets):
    again = validate.documents_of(validate.secrets())
    values = [{**each.get("data", {}), **each.get("stringData", {})} for each in (*secrets, *again)]

    said = [value for each in values for value in each.values()]
    assert len(set(said)) == len(said) > 8


@pytest.mark.parametrize("name", ["postgres", "nats", "auth"])
def test_one_secret_alone(validate, secrets, name):
    printed = subprocess.run([K8S / "secrets.sh", "elsewhere", name], capture_output=True, text=True, check=True)
    (alone,) = validate.documents_of(printed.stdout)
    (same,) = [secret for secret in secrets if secret["metadata"]["name"] == name]

    assert alone["metadata"] == {"name": name, "namespace": "elsewhere"}
    for part in ("data", "stringData"):
        assert alone.get(part, {}).keys() == same.get(part, {}).keys()


def test_a_secret_that_there_is_not():
    done = subprocess.run([K8S / "secrets.sh", "ns", "random"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "postgres, nats, auth" in done.stderr


def test_the_gateway_sees_where_clients_are(documents):
    """Kubernetes hands on the client's address only where no other node could have taken the connection."""
    (service,) = [d for d in documents if (d["kind"], d["metadata"]["name"]) == ("Service", "gateway")]
    assert (service["spec"]["type"], service["spec"]["externalTrafficPolicy"]) == ("NodePort", "Local")


def edited(documents, kind, name, change):
    """The documents, with one of them changed in place on a copy."""
    result = copy.deepcopy(documents)
    for document in result:
        if (document["kind"], document["metadata"]["name"]) == (kind, name):
            change(document)
    return result


def container(document):
    return document["spec"]["template"]["spec"]["containers"][0]


def variable(document, name):
    return next(each for each in container(document)["env"] if each["name"] == name)


@pytest.mark.parametrize(
    ("kind", "name", "change", "problem"),
    [
        ("Deployment", "auth", lambda d: container(d).update(imagePull="Always"), "imagePull"),
        ("Deployment", "auth", lambda d: d["spec"].update(replicas="two"), "is not of type"),
        ("Deployment", "auth", lambda d: d.update(apiVersion="apps/v9"), "Deployment/auth"),
        ("Service", "auth", lambda d: d["spec"].update(selector={"app": "x"}), "Service/auth: selects no pod"),
        ("Deployment", "auth", lambda d: d["metadata"].update(name="gateway"), "Deployment/gateway: is there twice"),
        ("Deployment", "auth", lambda d: d["metadata"].update(namespace="default"), "namespaces differ"),
        (
            "Deployment",
            "auth",
            lambda d: variable(d, "UHM_DATABASE_URL")["valueFrom"]["secretKeyRef"].update(key="uri"),
            "Deployment/auth: Secret/postgres has no uri",
        ),
        (
            "Deployment",
            "auth",
            lambda d: d["spec"]["template"]["spec"]["volumes"][0]["secret"]["items"][0].update(key="other.key"),
            "Deployment/auth: Secret/auth has no other.key",
        ),
        ("Deployment", "auth", lambda d: container(d).update(volumeMounts=[]), "the volume keys is not mounted"),
        ("PersistentVolumeClaim", "state", lambda d: d["metadata"].update(name="x"), "Claim/state is not there"),
    ],
)
def test_what_is_wrong_is_found(validate, documents, secrets, kind, name, change, problem):
    problems = validate.problems_of(edited(documents, kind, name, change) + secrets)
    assert any(problem in found for found in problems), problems


def test_the_program_prints_what_is_right_and_refuses_what_is_not(tmp_path):
    program = [sys.executable, str(K8S / "validate.py")]
    good = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert (good.returncode, good.stderr) == (0, "")
    assert "kind: Namespace" in good.stdout

    (tmp_path / "kustomization.yaml").write_text("resources: [service.yaml]\n")
    (tmp_path / "service.yaml").write_text("{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {prots: []}}")
    bad = subprocess.run([*program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120)
    assert bad.returncode == 1
    assert "Service/x" in bad.stderr

    absent = subprocess.run([*program, str(tmp_path / "no")], capture_output=True, text=True, check=False, timeout=120)
    assert (absent.returncode, "Traceback" in absent.stderr) == (1, False)


def test_a_directory_that_is_no_kustomization(validate, tmp_path):
    with pytest.raises(ProcessFailed):
        validate.render(tmp_path)
