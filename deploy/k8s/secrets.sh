#!/bin/sh
# Prints the Secrets that the manifests refer to, with new random values. Run it once per installation:
#   deploy/k8s/secrets.sh | kubectl apply -f -
# A second run would change the passwords of a database that keeps its old ones, and the key of what is encrypted in it.
set -eu
namespace=${1:-uhmalguhm}

# Begins with a letter, because NATS reads what begins with a digit as a number.
random() {
    printf 'p%s' "$(openssl rand -hex 24)"
}

postgres=$(random)
nats=$(random)
auth_key=$(openssl rand -base64 32)
invitation=$(random)
cat <<EOF
apiVersion: v1
kind: Secret
metadata:
  name: postgres
  namespace: $namespace
stringData:
  password: $postgres
  url: postgresql://uhm:$postgres@postgres:5432/uhm
---
apiVersion: v1
kind: Secret
metadata:
  name: nats
  namespace: $namespace
stringData:
  password: $nats
  url: nats://uhm:$nats@nats:4222
---
apiVersion: v1
kind: Secret
metadata:
  name: auth
  namespace: $namespace
data:
  auth.key: $auth_key
stringData:
  bootstrap-invitation: $invitation
EOF
