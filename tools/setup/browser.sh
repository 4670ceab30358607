# Installs Chromium where the distribution has it as a package; Ubuntu's is a snap, which needs an init system.
. tools/setup/distribution.sh
. tools/setup/apt.sh

find_distribution
case $distribution in
debian-*) install_missing chromium ;;
*) printf 'none in %s; tests that need it are skipped … ' "$distribution" >&3 ;;
esac
