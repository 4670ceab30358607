# shellcheck shell=sh

# Prints the address of a mirror of Debian: the one this system uses where it is a Debian, else the general one.
debian_mirror() {
    mirror=
    # shellcheck source=/dev/null
    if [ "$(. /etc/os-release && echo "$ID")" = debian ]; then
        # shellcheck disable=SC2016 # apt-get replaces it
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
            grep -E '^https?://.*/debian/$' | head -n 1) || true
    fi
    echo "${mirror:-http://deb.debian.org/debian/}"
}
