# Installs the distribution's packages that are missing. Nothing else of the set-up needs root.
. tools/setup/distribution.sh
. tools/setup/apt.sh

# A Docker Engine from elsewhere and a kernel that is there already are as good as the distribution's; a second kernel
# could become what the machine boots.
drop_what_is_there() {
    if command -v dockerd >/dev/null && [ -n "$(missing_of docker.io)" ]; then
        packages=$(echo "$packages" | sed 's/\bdocker\(\.io\|-cli\|-buildx\)//g')
    fi
    if ! ls /lib/modules/*/modules.dep >/dev/null 2>&1 || ! ls /boot/vmlinuz-* >/dev/null 2>&1; then
        case $distribution in
        debian-*) packages="$packages linux-image-cloud-amd64" ;;
        ubuntu-*) packages="$packages linux-image-virtual" ;;
        esac
    fi
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
install_missing $packages
case $distribution in
ubuntu-*) complete_ubuntu_kernel ;;
esac
