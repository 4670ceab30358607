# Configures and builds the kernel of $profile and puts it into $result, whole or not at all. The same source, compiler
# and configuration give the same bytes. $fragments and $digest are what it is made of.

: "${profile:?}" "${fragments:?}" "${result:?}" "${digest:?}"
out=$PWD/build/kernel/$profile
staged=$result.new

make_kernel() {
    nice make --silent --directory build/kernel/source O="$out" ARCH=x86_64 --jobs "$(nproc)" \
        KCONFIG_ALLCONFIG="$out/fragment" KBUILD_BUILD_VERSION=1 \
        KBUILD_BUILD_TIMESTAMP='1970-01-01 00:00:00 UTC' KBUILD_BUILD_USER=uhm KBUILD_BUILD_HOST=uhm "$@"
}

mkdir -p "$out/tmp"
export TMPDIR="$out/tmp"
# shellcheck disable=SC2086 # a list of paths without blanks
cat $fragments >"$out/fragment"
make_kernel allnoconfig
.venv/bin/python -m tools.kernel.fragment "$out/fragment" "$out/.config"
make_kernel bzImage

rm -rf "$staged"
mkdir -p "$staged"
cp "$out/arch/x86/boot/bzImage" "$staged/bzImage"
cp "$out/arch/x86/boot/compressed/vmlinux.bin" "$staged/vmlinux"
printf '{"version": "%s", "profile": "%s", "digest": "%s"}\n' \
    "$(cat "$out/include/config/kernel.release")" "$profile" "$digest" >"$staged/kernel.json"
rm -rf "$result"
mv "$staged" "$result"
