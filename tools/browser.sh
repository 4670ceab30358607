#!/bin/sh
# Installs the browser that the tests of pages drive. Nothing else needs it.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

. tools/setup/step.sh

mkdir -p build
exec 9>build/setup.lock
flock 9
always "browser for tests" tools/setup/browser.sh
