# Gets the kernel for disks that boot by themselves into build/guest/kernels/generic: Debian's own, with drivers for all hardware,
# where the one that guests boot is of the cloud flavour, which has none. It is unpacked, not installed: libguestfs and
# guests would take it for theirs. What no virtual machine has is left out.
#
# Nothing to do where guests' kernel has drivers itself, unless GENERIC_KERNEL is `always`. Where the package cannot be had, an earlier one stays; without
# any, those disks get the guests' kernel.

target=build/guest/kernels/generic

# The package that linux-image-amd64 stands for now.
package_name() {
    apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

fetch() {
    package=$(package_name)
    [ -n "$package" ] || return 1
    (cd "$target.new" && apt-get --quiet --option APT::Sandbox::User=root --option Acquire::Retries=3 download "$package")
}

# Leaves out modules that nothing in uhm_guest/portable.py needs. Each step says whether it went well, as fetch's do: where a
# function is a condition, `set -e` does not hold in it.
unpack() {
    set --
    for directory in sound net/wireless net/bluetooth net/mac80211 net/sunrpc net/ceph \
        drivers/comedi drivers/gpu drivers/hid drivers/hwmon drivers/iio drivers/infiniband drivers/media drivers/mmc \
        drivers/mtd drivers/platform drivers/staging drivers/target drivers/usb \
        drivers/net/wireless drivers/net/ethernet/broadcom drivers/net/ethernet/cavium drivers/net/ethernet/chelsio \
        drivers/net/ethernet/marvell drivers/net/ethernet/mellanox drivers/net/ethernet/netronome \
        drivers/net/ethernet/qlogic drivers/net/ethernet/sfc drivers/scsi/lpfc drivers/scsi/qla2xxx \
        fs/btrfs fs/ceph fs/f2fs fs/gfs2 fs/nfs fs/nfsd fs/ocfs2 fs/smb fs/xfs; do
        set -- "$@" "--exclude=*/kernel/$directory"
    done
    dpkg-deb --fsys-tarfile "$target.new/"*.deb >"$target.new/package.tar" &&
        tar --extract --no-same-owner --file "$target.new/package.tar" --directory "$target.new" "$@" \
            --wildcards './boot/vmlinuz-*' '*/lib/modules/*' &&
        rm "$target.new/"*.deb "$target.new/package.tar"
}

# Modules are below /lib or /usr/lib, and so does depmod look for them.
link_modules() {
    if [ -d "$target.new/usr/lib" ]; then
        ln -s usr/lib "$target.new/lib"
    else
        mkdir "$target.new/usr" && ln -s ../lib "$target.new/usr/lib"
    fi
}

# Fails where there is not one kernel with its modules.
index_modules() {
    version=$(cd "$target.new/lib/modules" && echo *) &&
        depmod --basedir "$PWD/$target.new" "$version" &&
        [ -s "$target.new/boot/vmlinuz-$version" ] &&
        [ -s "$target.new/lib/modules/$version/modules.dep" ]
}

rm -rf "$target.new"
mkdir -p "$target.new/boot"
if [ "${GENERIC_KERNEL:-}" = always ] || ls -d /lib/modules/*-cloud-* >/dev/null 2>&1; then
    if ! { fetch && unpack && link_modules && index_modules; }; then
        rm -rf "$target.new"
        if [ -e "$target/boot" ]; then
            printf '(not to be had; the one that is there stays) ' >&3
        else
            printf '(not to be had; exported disks get the kernel that guests boot) ' >&3
        fi
        exit 0
    fi
fi
rm -rf "$target"
mv "$target.new" "$target"
