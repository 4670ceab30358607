#!/bin/sh
# Builds the guest's kernel out of the distribution's source package, as guest/kernel.config says; the profile `full` adds
# guest/kernel-full.config. Takes about 5 minutes on two cores, or no time where nothing has changed.
#
#     [PROFILE=minimal|full] tools/kernel.sh
#
# The result is build/guest/kernels/PROFILE: `bzImage`, `vmlinux` (the ELF inside of it, as QEMU's -kernel starts it through
# PVH) and `kernel.json`. Long output goes to build/kernel.log. Where each step's work is done: tools/kernel/.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

. tools/setup/step.sh
log=build/kernel.log

profile=${PROFILE:-minimal}
case $profile in
minimal) fragments=guest/kernel.config ;;
full) fragments="guest/kernel.config guest/kernel-full.config" ;;
*)
    echo "There is no profile $profile; it can be minimal or full." >&2
    exit 2
    ;;
esac
result=build/guest/kernels/$profile

# Names the kernel by all that it is made of.
digest_of_inputs() {
    {
        dpkg-query --show linux-source
        gcc --version
        ld --version
        # shellcheck disable=SC2086 # a list of paths without blanks
        cat tools/kernel/build.sh $fragments
    } | sha256sum | cut -d ' ' -f 1
}

mkdir -p build/kernel
exec 9>build/kernel.lock
flock 9
: >"$log"

started=$(now)
always "packages for building" tools/kernel/packages.sh
digest=sha256:$(digest_of_inputs)
if grep --quiet --no-messages "\"$digest\"" "$result/kernel.json"; then
    printf '==> kernel, profile %s … up to date\n' "$profile"
    exit
fi
export profile fragments result digest
always "kernel's source" tools/kernel/source.sh
always "kernel, profile $profile (about 5 minutes)" tools/kernel/build.sh
printf '==> %s after %s s\n' "$result" "$(seconds_since "$started")"
