"""Generates `protos/gen`: Python messages, gRPC stubs, type stubs and the descriptor set of the API.

`buf` finds google/api/*.proto in `build/googleapis`, copied there from the googleapis-common-protos package, so that
neither a schema registry nor a vendored copy is needed.
"""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
GENERATED = PROTOS / "gen"
GOOGLEAPIS = PROTOS.parent / "build" / "googleapis"
USED_GOOGLEAPIS = ("annotations.proto", "http.proto", "httpbody.proto")


def copy_googleapis() -> None:
    """Puts the imported google/api definitions where buf and protoc find them."""
    target = GOOGLEAPIS / "google" / "api"
    target.mkdir(parents=True, exist_ok=True)
    for name in USED_GOOGLEAPIS:
        (target / name).write_bytes(files("google.api").joinpath(name).read_bytes())


def generate() -> int:
    """Runs protoc with the Python, gRPC and mypy plug-ins; answers its exit code."""
    shutil.rmtree(GENERATED, ignore_errors=True)
    package = GENERATED / "uhmalguhm"
    package.mkdir(parents=True)
    (package / "py.typed").touch()
    sources = sorted(str(path) for path in (PROTOS / "uhmalguhm").rglob("*.proto"))
    plugins = Path(sys.executable).parent
    code: int = protoc.main(
        [
            "protoc",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--proto_path={PROTOS}",
            f"--proto_path={GOOGLEAPIS}",
            f"--proto_path={files('grpc_tools').joinpath('_proto')}",
            f"--python_out={GENERATED}",
            f"--grpc_python_out={GENERATED}",
            f"--mypy_out=quiet:{GENERATED}",
            f"--mypy_grpc_out=quiet:{GENERATED}",
            f"--descriptor_set_out={package / 'descriptors.binpb'}",
            "--include_imports",
            "--include_source_info",
            *sources,
        ]
    )
    return code


if __name__ == "__main__":
    copy_googleapis()
    sys.exit(generate())
