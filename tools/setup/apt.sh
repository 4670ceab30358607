# shellcheck shell=sh
# Installs the distribution's packages, as root or through sudo. What only the user can do is told on descriptor 3.

# Prints those of its arguments that are not installed.
missing_of() {
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# Installs those of its arguments that are not installed.
install_missing() {
    missing=$(missing_of "$@")
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # a list of words
        install $missing
    fi
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
