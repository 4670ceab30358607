# Installs the distribution's packages that are missing. Nothing else of the set-up needs root.
. tools/setup/distribution.sh

# A Docker Engine from elsewhere and a kernel that is there already are as good as the distribution's; a second kernel
# could become what the machine boots.
drop_what_is_there() {
    if command -v dockerd >/dev/null; then
        packages=$(echo "$packages" | sed 's/\bdocker\.io\b//')
    fi
    if ! ls /lib/modules/*/modules.dep >/dev/null 2>&1 || ! ls /boot/vmlinuz-* >/dev/null 2>&1; then
        case $distribution in
        debian-*) packages="$packages linux-image-cloud-amd64" ;;
        ubuntu-*) packages="$packages linux-image-virtual" ;;
        esac
    fi
}

# Prints those of its arguments that are not installed.
missing_of() {
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# Asks nobody and waits for others that use the package database.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get --quiet --yes \
        --option DPkg::Lock::Timeout=900 --option Acquire::Retries=3 --option Dpkg::Options::=--force-confold "$@"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

explain_root() {
    if [ "$(id -u)" -eq 0 ]; then
        return
    fi
    if command -v sudo >/dev/null; then
        printf '\n    sudo is needed to install: %s\n    ' "$*" >&3
    else
        echo "Root is needed to install packages, and sudo is not installed. As root, run:"
        echo "  apt-get update && apt-get install --no-install-recommends $*"
        return 1
    fi
}

# Where no init system runs (a container, a chroot), packages would start their services by themselves.
hold_services_back() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -d /run/systemd/system ] && [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy
        as_root chmod 755 $policy
        trap 'as_root rm -f $policy' EXIT
        trap 'exit 1' HUP INT TERM
    fi
}

# Installs packages. The package lists are fetched only where they are missing or too old to install from.
install() {
    explain_root "$@"
    hold_services_back
    if apt_get install --no-install-recommends "$@"; then
        return
    fi
    update_lists
    apt_get install --no-install-recommends "$@"
}

# apt-get's own lock on the lists has no time limit to wait, so waiting is done here.
update_lists() {
    for attempt in 1 2 3 4 5 6; do
        if apt_get update; then
            return
        fi
        echo "apt-get update failed (attempt $attempt)"
        sleep 10
    done
    return 1
}

# Ubuntu keeps file systems that few need in a package of their own, and lets only root read the kernel, which guests
# and libguestfs boot.
complete_ubuntu_kernel() {
    if ! grep --quiet '/erofs\.ko' /lib/modules/*/modules.dep; then
        newest=$(printf "%s\n" /lib/modules/* | sort --version-sort | tail -n 1)
        install "linux-modules-extra-${newest##*/}"
    fi
    for kernel in /boot/vmlinuz-*; do
        [ -r "$kernel" ] || as_root chmod 644 "$kernel"
    done
}

find_distribution
drop_what_is_there
# shellcheck disable=SC2086 # a list of words
missing=$(missing_of $packages)
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086
    install $missing
fi
case $distribution in
ubuntu-*) complete_ubuntu_kernel ;;
esac
