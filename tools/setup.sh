#!/bin/sh
# Makes a fresh clone ready to run: packages, tools, Python environment, generated code, the guest's init.
# Does only what is missing or out of date, so it may run as often as wanted. Long output goes to build/setup.log.
# Only the first step needs root. Where each step's work is done: tools/setup/.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

. tools/setup/step.sh

mkdir -p build/stamps build/tools
exec 9>build/setup.lock
flock 9
: >build/setup.log

started=$(now)
always "system packages" tools/setup/packages.sh
step "mkfs.erofs" build/tools/mkfs.erofs tools/setup/mkfs-erofs.sh
step "docker-registry" build/tools/docker-registry tools/setup/docker-registry.sh
# shellcheck disable=SC2046 # paths of the source tree hold no blanks
step "python environment" .venv/bin/uhm tools/setup/venv.sh uv.lock pyproject.toml $(echo */pyproject.toml services/*/pyproject.toml)
# shellcheck disable=SC2046
step "generated code" protos/gen/uhmalguhm/descriptors.binpb tools/setup/protos.sh \
    uv.lock protos/generate.py $(find protos/uhmalguhm -name '*.proto')
if [ -f guest/Makefile ]; then
    always "guest's init" tools/setup/guest.sh
fi
step "kernel of exported disks" build/guest/kernels/generic/boot tools/setup/portable-kernel.sh
printf '==> ready in %s s\n' "$(seconds_since "$started")"
