#!/bin/sh
# Fuzzes with coverage as the guide; arguments as of `python -m tests.fuzz`. The fuzzer, which only this needs, is kept
# beside its corpora and not in .venv.
set -eu
cd "$(dirname "$0")/.."
fuzzer=$PWD/build/fuzz/python
if ! PYTHONPATH=$fuzzer .venv/bin/python -c 'import atheris' 2>/dev/null; then
    mkdir -p build/fuzz
    .venv/bin/uv export --quiet --frozen --only-group fuzz --output-file build/fuzz/requirements.txt
    .venv/bin/uv pip install --quiet --python .venv/bin/python --target "$fuzzer" --requirements build/fuzz/requirements.txt
fi
PYTHONPATH=$fuzzer exec nice -n 19 .venv/bin/python -m tests.fuzz "$@"
