#!/bin/sh
# From a container image to a page served by a virtual machine, on ports and in a directory of its own.
# Everything is stopped and deleted at the end and on Ctrl-C; with KEEP=1 the system and the machines stay.
# The exit code is 0 only when the page came.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
registry_pid=

say() {
    printf '\n==> %s\n' "$1"
}

# Shows a command and runs it.
show() {
    printf '$ %s\n' "$*"
    "$@"
}

# free_ports COUNT: ports on loopback where nobody listens.
free_ports() {
    python - "$1" <<'PYTHON'
import socket
import sys

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

# Docker Hub where it answers, else a registry on loopback with images made here.
choose_registry() {
    hub=$(curl --silent --output /dev/null --max-time 5 --write-out '%{http_code}' https://registry-1.docker.io/v2/) || true
    if [ "$hub" = 401 ]; then
        return
    fi
    say "Docker Hub is out of reach: nginx is made here, once"
    python -m tools.local_registry --make-only
    python -m tools.local_registry --port "$registry_port" >"$state/registry.log" 2>&1 &
    registry_pid=$!
    UHM_REGISTRY_MIRRORS="docker.io=http://127.0.0.1:$registry_port"
    export UHM_REGISTRY_MIRRORS
    curl --silent --fail --output /dev/null --noproxy '*' --retry 50 --retry-connrefused --retry-delay 1 \
        "http://127.0.0.1:$registry_port/v2/"
}

# fetch PORT: waits for a page, each try a short one, because the first packets to a starting machine may be lost.
fetch() {
    for _ in $(seq 60); do
        if curl --silent --fail --noproxy '*' --max-time 1 "http://127.0.0.1:$1/"; then
            return
        fi
        sleep 0.1
    done
    echo "No page came from port $1." >&2
    return 1
}

# A snapshot of nginx as it serves is made in the background, once its image is ready; without it the start is only slower.
wait_for_snapshot() {
    tries=200
    until [ -n "$(find "$state/snapshots" -path '*/making-*' -prune -o -name disk.qcow2 -print 2>/dev/null)" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 0
        sleep 0.1
    done
    sleep 1
}

clean_up() {
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "${KEEP:-}" ] && [ -n "${up:-}" ]; then
        say "kept running"
        echo "export UHM_URL=$UHM_URL XDG_CONFIG_HOME=$XDG_CONFIG_HOME"
        echo "uhm ps"
        echo "To end it: .venv/bin/uhm down --state-dir $state${registry_pid:+; kill $registry_pid}; rm -r $state"
        return
    fi
    say "cleaning up"
    uhm down --state-dir "$state" || true
    if [ -n "$registry_pid" ]; then
        kill "$registry_pid" 2>/dev/null || true
        wait "$registry_pid" || true
    fi
    rm -rf "$state"
}

state=$(mktemp --directory --tmpdir uhm-demo.XXXXXX)
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# shellcheck disable=SC2046 # four words
set -- $(free_ports 5)
rest_port=$1 grpc_port=$2 registry_port=$3 first_port=$4 second_port=$5
unset UHM_TOKEN UHM_REGISTRY_MIRRORS
export UHM_URL="http://127.0.0.1:$rest_port" XDG_CONFIG_HOME="$state/config"

choose_registry

say "the system starts"
show uhm up --state-dir "$state" --rest-port "$rest_port" --grpc-port "$grpc_port" --detach
up=1
show uhm register demo demo-password
show uhm login demo --password demo-password

say "an image is made out of nginx"
show uhm pull nginx

say "a machine starts and serves"
show uhm run -d --wait listening -p "$first_port:80" nginx
page=$(fetch "$first_port")
printf '$ curl http://127.0.0.1:%s/\n%s\n' "$first_port" "$page"

say "and another one, which is a clone of the service that runs"
wait_for_snapshot
show uhm run -d --wait listening -p "$second_port:80" nginx
fetch "$second_port" >/dev/null
show uhm ps

case $page in
*nginx*) say "the page came" ;;
*)
    echo "That is not nginx's page." >&2
    exit 1
    ;;
esac
