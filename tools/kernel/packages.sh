# Installs what a kernel is built out of, where it is missing.
. tools/setup/apt.sh

install_missing linux-source bc binutils bison bzip2 flex gcc libc6-dev libelf-dev make xz-utils
