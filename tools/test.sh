#!/bin/sh
# Runs pytest with its arguments, over everything where there are none. Whatever tests have started ends with them.
set -eu
cd "$(dirname "$0")/.."
exec .venv/bin/python -m tools.contained .venv/bin/python -m pytest "$@"
