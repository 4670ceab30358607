# shellcheck shell=sh
# Which distribution this is and what the project needs of it. Sets `distribution` and `packages`.

# The last line is what only tests need: volumes with metadata, firmware for UEFI, a database server.
wanted_everywhere="
    busybox-static ca-certificates cryptsetup-bin curl docker.io dosfstools e2fsprogs gcc iproute2 libyaml-dev make
    mmdebstrap musl-tools rpm
    python3 python3-guestfs python3-venv
    qemu-system-x86 qemu-utils
    syslinux syslinux-common systemd-boot-efi
    mtools ovmf postgresql xorriso"

# Reads /etc/os-release; ends with the list of what is needed where the distribution is not known.
# shellcheck disable=SC2034,SC2086 # used by packages.sh; lists of words
find_distribution() {
    # shellcheck source=/dev/null
    distribution=$(. /etc/os-release && echo "$ID-${VERSION_ID:-rolling}")
    case $distribution-$(uname -m) in
    debian-12-x86_64) packages="$wanted_everywhere" ;;
    debian-13-x86_64) packages="$wanted_everywhere erofs-utils docker-cli docker-buildx" ;;
    ubuntu-24.04-x86_64) packages="$wanted_everywhere debian-archive-keyring docker-buildx" ;;
    *)
        echo "This set-up knows Debian 12 and 13 and Ubuntu 24.04 on x86_64; this is $distribution on $(uname -m)."
        echo "Install by hand what these Debian packages hold, a kernel with its modules in /boot and /lib/modules,"
        echo "mkfs.erofs of erofs-utils 1.8 or later and docker-registry, then run the other steps in tools/setup.sh:"
        printf '  %s\n' $wanted_everywhere
        return 1
        ;;
    esac
}
