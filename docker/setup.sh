#!/bin/sh
# Makes what compose.yaml mounts from ./state: keys, certificates, passwords, a JWKS, a token.
#
#   sh setup.sh            builds the image and makes ./state (keeps what is there)
#   sh setup.sh --token    a fresh token for the application (they last a day)
#   sh setup.sh --clean    removes ./state
#
# The work is done in a container of the gate's own image, as root, because each file must
# belong to the user that reads it. With --inside DIR it is done right here instead (as root,
# with openssl and postern on the PATH).
# SPDX-License-Identifier: Apache-2.0
set -eu

image=postern:local
gate=15432 app=15433 redis=999
kid=demo-1

random_password() { openssl rand -base64 33 | tr '+/' '-_'; }

# file_of PATH OWNER: takes standard input; never readable by others, not even for a moment.
file_of() {
    (umask 077 && cat >"$1.new")
    chown "$2:$2" "$1.new"
    chmod 0400 "$1.new"
    mv -f "$1.new" "$1"
}

authority() { # authority DIR NAME
    [ -f "$1/ca.crt" ] && return
    mkdir -p "$1"
    chmod 0700 "$1"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -keyout "$1/ca.key" -out "$1/ca.crt" -subj "/CN=$2" \
        -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
}

certificate() { # certificate AUTHORITY NAME ALTNAMES KEYFILE CERTFILE OWNER
    [ -f "$5" ] && return
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null | file_of "$4" "$6"
    openssl req -new -key "$4" -subj "/CN=$2" | openssl x509 -req -days 825 \
        -CA "$1/ca.crt" -CAkey "$1/ca.key" -CAcreateserial -extfile /dev/fd/3 2>/dev/null \
        3<<EOF >"$5.new"
subjectAltName=$3
basicConstraints=critical,CA:false
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
EOF
    chmod 0444 "$5.new"
    mv "$5.new" "$5"
}

token() { # token DIR
    postern token --key "$1/issuer/signing-key.pem" --kid "$kid" --alg ES256 \
        --issuer https://issuer.example --audience postern-demo \
        --tenant acme --role rw --lifetime 24h --subject demo-app | file_of "$1/app/token" "$app"
}

make_all() { # make_all DIR
    state=$1
    mkdir -p "$state/gate/roles" "$state/nodes" "$state/app" "$state/redis" "$state/superuser" \
        "$state/issuer"
    chmod 0755 "$state"
    chmod 0700 "$state/superuser" "$state/issuer"

    # The nodes: YugabyteDB looks for node.<name>.crt and node.<name>.key.
    authority "$state/authority-nodes" 'demo database authority'
    for n in 1 2 3; do
        name=yb-tserver-$n
        certificate "$state/authority-nodes" "$name" "DNS:$name,IP:172.31.77.2$n" \
            "$state/nodes/node.$name.key" "$state/nodes/node.$name.crt" 0
    done
    cp "$state/authority-nodes/ca.crt" "$state/nodes/ca.crt"
    cp "$state/authority-nodes/ca.crt" "$state/gate/nodes-ca.crt"

    # The gate.
    authority "$state/authority-gate" 'demo gate authority'
    certificate "$state/authority-gate" postern 'DNS:postern,DNS:localhost,IP:127.0.0.1' \
        "$state/gate/server.key" "$state/gate/server.crt" "$gate"
    cp "$state/authority-gate/ca.crt" "$state/app/ca.crt"

    # Database passwords: one file per role, read by the gate and by cluster-init.
    for role in postern_monitor acme_rw acme_ro globex_rw globex_ro; do
        [ -f "$state/gate/roles/$role" ] || random_password | file_of "$state/gate/roles/$role" "$gate"
    done
    [ -f "$state/superuser/password" ] || random_password | file_of "$state/superuser/password" 0

    # Redis: its certificate, and the user of the gate with the rights of deploy/redis/users.conf. The
    # file of users holds the password's digest.
    authority "$state/authority-redis" 'demo Redis authority'
    certificate "$state/authority-redis" redis DNS:redis "$state/redis/tls.key" "$state/redis/tls.crt" "$redis"
    cp "$state/authority-redis/ca.crt" "$state/gate/redis-ca.crt"
    if [ ! -f "$state/redis/users.conf" ]; then
        random_password | file_of "$state/gate/redis-password" "$gate"
        digest=$(tr -d '\n' <"$state/gate/redis-password" | sha256sum | cut -d' ' -f1)
        printf 'user default off\n%s\n' "user gateway on #$digest resetchannels -@all +set +get +hset +hgetall +hdel +pexpire +time +evalsha +eval ~{postern:*" | file_of "$state/redis/users.conf" "$redis"
        file_of "$state/redis/redis.conf" "$redis" <<EOF
port 0
tls-port 6379
tls-cert-file /etc/redis/tls.crt
tls-key-file /etc/redis/tls.key
tls-auth-clients no
include /etc/redis/users.conf
save ""
appendonly no
maxmemory 128mb
proto-max-bulk-len 1mb
EOF
    fi

    # The console's administrator, who logs in with SCRAM-SHA-256.
    if [ ! -f "$state/gate/users" ]; then
        random_password | file_of "$state/issuer/console-password" 0
        printf '"admin" "%s" - -\n' "$(postern scram <"$state/issuer/console-password")" |
            file_of "$state/gate/users" "$gate"
    fi

    # The issuer. The private key stays in state/issuer, which no container mounts.
    [ -f "$state/issuer/signing-key.pem" ] ||
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null |
        file_of "$state/issuer/signing-key.pem" 0
    postern jwks --key "$state/issuer/signing-key.pem" --kid "$kid" --alg ES256 |
        file_of "$state/gate/jwks.json" "$gate"
    chown "$gate:$gate" "$state/gate" "$state/gate/roles"
    chmod 0500 "$state/gate" "$state/gate/roles"
    token "$state"
}

if [ "${1:-}" = --inside ]; then
    case ${3:-all} in
    token) token "$2" ;;
    all) make_all "$2" ;;
    *) echo "setup.sh: what is '$3'?" >&2; exit 2 ;;
    esac
    exit
fi

cd "$(dirname "$0")"
in_container() {
    docker run --rm --network none --user 0:0 --entrypoint sh \
        -v "$PWD:/demo" "$image" "$@"
}
case ${1:-} in
'')
    docker build -f Dockerfile -t "$image" ..
    in_container /demo/setup.sh --inside /demo/state
    echo "state/ is made. Next: docker compose up"
    echo "From this machine, once it runs (sudo reads the files):"
    echo "  PGPASSWORD=\$(sudo cat state/app/token) psql 'host=localhost port=6432 dbname=acme user=rw sslmode=verify-full sslrootcert=state/app/ca.crt'"
    ;;
--token) in_container /demo/setup.sh --inside /demo/state token ;;
--clean) in_container -c 'rm -rf /demo/state' ;;
*) sed -n '2,12p' setup.sh >&2; exit 2 ;;
esac
