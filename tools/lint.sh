#!/bin/sh
# Runs every check, then fails if one of them did.
set -eu
cd "$(dirname "$0")/.."
bin=.venv/bin
failed=

check() {
    title=$1
    shift
    printf '==> %s\n' "$title"
    "$@" || failed="$failed $title,"
}

# Prints those of its arguments that exist: not every part of the tree is there from the start.
existing() {
    for path in "$@"; do
        [ ! -e "$path" ] || echo "$path"
    done
}

# What generators and builds write must be ignored by git, never committed.
nothing_generated() {
    [ -e .git ] || return 0
    committed=$(git ls-files -- build protos/gen .venv '*.pyc' '*_pb2.py' '*_pb2.pyi' '*_pb2_grpc.py' '*.binpb')
    [ -z "$committed" ] || {
        printf 'Generated, but committed:\n%s\n' "$committed"
        return 1
    }
}

# shellcheck disable=SC2046 # lists of paths without blanks
{
    check "ruff check" $bin/ruff check --quiet .
    check "ruff format" $bin/ruff format --check --quiet .
    check "mypy, packages" $bin/mypy --no-error-summary $(existing services/*/uhm_* cli/uhm guest/uhm_guest)
    check "mypy, tools" $bin/mypy --no-error-summary --explicit-package-bases \
        $(existing protos/generate.py tools bench deploy/k8s/validate.py)
    check "buf lint" $bin/buf lint
    check "shellcheck" $bin/shellcheck --external-sources --shell=sh \
        tools/*.sh tools/setup/*.sh tools/kernel/*.sh examples/*.sh deploy/k8s/*.sh $(existing cli/uhm/system/*.sh)
    check "shellcheck, .ci" $bin/shellcheck .ci/run
    check "nothing generated is committed" nothing_generated
}

[ -z "$failed" ] || {
    printf 'lint failed:%s\n' "${failed%,}" >&2
    exit 1
}
