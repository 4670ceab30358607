"""Prints the manifests of a kustomize directory, and checks them: `validate.py [DIRECTORY]`.

Every document is held against the schema of its kind, strictly: a field that Kubernetes does not know is an error. Then
names are looked up: what pods mount and read must be there, the Secrets that `secrets.sh` makes included, and what
selects pods must select some. What was found goes to standard error, and the exit code is 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import yaml

from uhm_common.errors import UhmError
from uhm_common.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["documents_of", "pod_specs", "problems_of", "render", "secrets"]

HERE = Path(__file__).resolve().parent
KUBECTL = Path(sys.executable).parent / "kubectl"
DEFAULT = HERE / "overlays" / "single-node"

Document = dict[str, Any]


def render(directory: Path) -> str:
    """What `kubectl kustomize` makes of a directory. Raises ProcessFailed."""
    return run([KUBECTL, "kustomize", directory], timeout=60).stdout.decode()


def secrets() -> str:
    """The Secrets, which are not part of the manifests."""
    return run([HERE / "secrets.sh"], timeout=60).stdout.decode()


def documents_of(text: str) -> list[Document]:
    """The documents of a YAML stream."""
    return [document for document in yaml.safe_load_all(text) if document]


def problems_of(documents: list[Document]) -> list[str]:
    """What is wrong, a line each."""
    found = [*_schema_problems(documents), *_name_problems(documents)]
    for name, pod in pod_specs(documents):
        found += [f"{name}: {problem}" for problem in (*_missing(pod, documents), *_unmounted(pod))]
    return found + list(_idle_selectors(documents))


def pod_specs(documents: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """The pods that workloads make, each with the workload's name."""
    for document in documents:
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield _name(document), document["spec"]["template"]["spec"]


def _name(document: Document) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def _schema_problems(documents: Iterable[Document]) -> Iterator[str]:
    version = kubernetes_validate.latest_version()
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{_name(document)}: {getattr(error, 'message', error)}"


def _name_problems(documents: list[Document]) -> Iterator[str]:
    names = [_name(document) for document in documents]
    yield from (f"{name}: is there twice" for name in sorted({name for name in names if names.count(name) > 1}))
    namespaces = {document["metadata"].get("namespace") for document in documents if document["kind"] != "Namespace"}
    if len(namespaces) > 1:
        yield f"namespaces differ: {', '.join(sorted(map(str, namespaces)))}"


def _missing(pod: Document, documents: list[Document]) -> Iterator[str]:
    """What a pod refers to that is not there."""
    keys = {
        _name(document): {**document.get("data", {}), **document.get("stringData", {})}.keys() for document in documents
    }
    for reference, key in _references(pod):
        if reference not in keys:
            yield f"{reference} is not there"
        elif key is not None and key not in keys[reference]:
            yield f"{reference} has no {key}"


def _references(pod: Document) -> Iterator[tuple[str, str | None]]:
    """What a pod refers to, as `Kind/name` and the key in it where there is one."""
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            yield f"ConfigMap/{source['configMapRef']['name']}", None
        for variable in container.get("env", []):
            if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield f"Secret/{secret['name']}", secret["key"]
    for volume in pod.get("volumes", []):
        if claim := volume.get("persistentVolumeClaim"):
            yield f"PersistentVolumeClaim/{claim['claimName']}", None
        if secret := volume.get("secret"):
            for item in secret.get("items", [{"key": None}]):
                yield f"Secret/{secret['secretName']}", item["key"]
        if config := volume.get("configMap"):
            yield f"ConfigMap/{config['name']}", None


def _unmounted(pod: Document) -> Iterator[str]:
    mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
    for volume in {volume["name"] for volume in pod.get("volumes", [])} - mounted:
        yield f"the volume {volume} is not mounted"


def _idle_selectors(documents: list[Document]) -> Iterator[str]:
    """Services, budgets and policies that select no pod."""
    pods = [
        document["spec"]["template"]["metadata"]["labels"].items()
        for document in documents
        if document["kind"] in {"Deployment", "StatefulSet"}
    ]
    for document in documents:
        spec = document.get("spec", {})
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"].get("matchLabels", {}),
        }.get(document["kind"])
        if selector and not any(selector(spec).items() <= labels for labels in pods):
            yield f"{_name(document)}: selects no pod"


def main(arguments: list[str]) -> int:
    """Prints and checks one directory; answers the exit code."""
    try:
        text = render(Path(arguments[0]) if arguments else DEFAULT)
        problems = problems_of(documents_of(text) + documents_of(secrets()))
    except UhmError as error:
        problems = [str(error)]
    else:
        sys.stdout.write(text)
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
