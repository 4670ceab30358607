# Unpacks the distribution's newest kernel source into build/kernel/source, unless it is there.

source=build/kernel/source
version=$(dpkg-query --show linux-source)

if [ "$(cat $source.version 2>/dev/null)" != "$version" ]; then
    rm -rf $source $source.version
    mkdir -p $source
    archive=$(printf '%s\n' /usr/src/linux-source-*.tar.* | sort --version-sort | tail -n 1)
    tar --extract --file "$archive" --directory $source --strip-components 1
    echo "$version" >$source.version
fi
