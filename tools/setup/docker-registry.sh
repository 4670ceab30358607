# Gets Debian's docker-registry into build/tools, as a program only: its package would also start it on port 5000.

target=build/tools/docker-registry
scratch=build/tools/docker-registry.d

rm -rf "$target" "$scratch"
if installed=$(command -v docker-registry); then
    ln -s "$installed" "$target"
else
    mkdir "$scratch"
    (cd "$scratch" && apt-get --quiet --option APT::Sandbox::User=root --option Acquire::Retries=3 download docker-registry)
    dpkg-deb --extract "$scratch"/docker-registry_*.deb "$scratch"
    mv "$scratch/usr/bin/docker-registry" "$target"
    rm -r "$scratch"
fi
"$target" --version
