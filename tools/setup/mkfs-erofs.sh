# Gets mkfs.erofs 1.8 or later into build/tools: the installed one, else Debian 13's with the libraries it needs.
# With it comes dump.erofs, which tests read images with.
#
# On older systems the packages are unpacked below build/ and run through their own dynamic loader. apt-get fetches them
# with a configuration, lists and a package database of its own, so that the system's apt stays as it is; it checks them
# against Debian's archive keys.
. tools/setup/debian-mirror.sh

suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
target=build/tools/erofs-utils

# Whether the program given can make images out of tars as the builder wants it.
new_enough() {
    version=$("$1" --version 2>&1 | sed -n 's/^mkfs\.erofs (erofs-utils) \([0-9.]*\).*/\1/p')
    dpkg --compare-versions "${version:-0}" ge 1.8
}

fetch_packages() {
    apt=$PWD/$target/apt
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    : >"$apt/status"
    echo "deb [signed-by=$keyring] $(debian_mirror) $suite main" >"$apt/sources.list"
    for command in update "install --download-only --no-install-recommends erofs-utils"; do
        # shellcheck disable=SC2086 # the command is several words
        apt-get --quiet --yes \
            --option Dir::Etc::SourceList="$apt/sources.list" \
            --option Dir::Etc::SourceParts=/dev/null \
            --option Dir::Etc::Preferences=/dev/null \
            --option Dir::Etc::PreferencesParts=/dev/null \
            --option Dir::State="$apt" \
            --option Dir::State::Lists="$apt/lists" \
            --option Dir::State::Status="$apt/status" \
            --option Dir::Cache="$apt" \
            --option Dir::Cache::Archives="$apt/archives" \
            --option APT::Architecture=amd64 \
            --option APT::Architectures=amd64 \
            --option APT::Sandbox::User=root \
            --option APT::Update::Post-Invoke= \
            --option Acquire::Languages=none \
            --option Acquire::Retries=3 \
            $command
    done
}

unpack_packages() {
    for package in "$target"/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$target"
    done
    rm -r "${target:?}/apt" "${target:?}/usr/share"
}

# write_launcher PROGRAM: a script that runs it through its loader, found beside the script, so that the tree may be moved.
write_launcher() {
    cat >"build/tools/$1.new" <<LAUNCHER
#!/bin/sh
root=\${0%/*}/erofs-utils/usr
exec "\$root/lib64/ld-linux-x86-64.so.2" --library-path "\$root/lib/x86_64-linux-gnu" --argv0 $1 \\
    "\$root/bin/$1" "\$@"
LAUNCHER
    chmod 755 "build/tools/$1.new"
    mv "build/tools/$1.new" "build/tools/$1"
}

rm -rf build/tools/mkfs.erofs build/tools/dump.erofs "$target"
if installed=$(command -v mkfs.erofs) && new_enough "$installed"; then
    ln -s "$(command -v dump.erofs)" build/tools/dump.erofs
    ln -s "$installed" build/tools/mkfs.erofs
else
    fetch_packages
    unpack_packages
    write_launcher dump.erofs
    write_launcher mkfs.erofs
fi
new_enough build/tools/mkfs.erofs
