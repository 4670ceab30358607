"""`python -m tests.fuzz.child TARGET OPTION…`: one target under atheris, with the options of libFuzzer."""

from __future__ import annotations

import importlib
import sys

import atheris

# Whatever a target's modules are, they must be imported for the first time while atheris watches imports.
WATCHED = ["uhm_gateway", "uhm_common", "uhm_builder", "jwt"]

if __name__ == "__main__":
    with atheris.instrument_imports(include=WATCHED):
        targets = importlib.import_module("tests.fuzz.targets")
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, targets.TARGETS[name].run)
    atheris.Fuzz()
