#!/bin/sh
# Prints the Secrets that the manifests refer to, with new random values. Run it once per installation:
#   deploy/k8s/secrets.sh [NAMESPACE [NAME]] | kubectl apply -f -
# With a NAME (postgres, nats, auth) only that one. A second run would change the passwords of a database that keeps its
# old ones, and the key of what is encrypted in it.
set -eu
namespace=${1:-uhmalguhm}

# Begins with a letter, because NATS reads what begins with a digit as a number.
random() {
    digits=$(openssl rand -hex 24)
    printf 'p%s' "$digits"
}

# secret NAME: the beginning of one.
secret() {
    cat <<EOF
---
apiVersion: v1
kind: Secret
metadata:
  name: $1
  namespace: $namespace
EOF
}

postgres() {
    password=$(random)
    secret postgres
    cat <<EOF
stringData:
  password: $password
  url: postgresql://uhm:$password@postgres:5432/uhm
EOF
}

nats() {
    password=$(random)
    secret nats
    cat <<EOF
stringData:
  password: $password
  url: nats://uhm:$password@nats:4222
EOF
}

auth() {
    key=$(openssl rand -base64 32)
    invitation=$(random)
    secret auth
    cat <<EOF
data:
  auth.key: $key
stringData:
  bootstrap-invitation: $invitation
EOF
}

case ${2:-} in
'')
    postgres
    nats
    auth
    ;;
postgres | nats | auth) "$2" ;;
*)
    echo "$0: there is no Secret $2: postgres, nats, auth" >&2
    exit 2
    ;;
esac
