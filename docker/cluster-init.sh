#!/bin/bash
# Runs in cluster-init of compose.yaml: waits for YSQL, gives the superuser a password of its
# own, and makes the databases and roles of the tenants acme and globex. May run again.
# SPDX-License-Identifier: Apache-2.0
set -eu
ysqlsh=${YSQLSH:-/home/yugabyte/bin/ysqlsh}
roles=${ROLES_DIR:-/roles}
superuser=${SUPERUSER_DIR:-/superuser}
export PGUSER=${PGUSER:-yugabyte}
default_database=${DEFAULT_DATABASE:-yugabyte}

sql() { "$ysqlsh" -X -q -v ON_ERROR_STOP=1 "$@"; }

# The password of a new cluster is its name; after the first run it is ours.
tries=0
while :; do
    PGPASSWORD=$(cat "$superuser/password")
    export PGPASSWORD
    if sql -d "$default_database" -c 'SELECT 1' >/dev/null 2>&1; then
        break
    fi
    if said=$(PGPASSWORD=yugabyte sql -d "$default_database" -c 'SELECT 1' 2>&1 >/dev/null); then
        PGPASSWORD=yugabyte sql -d "$default_database" <<EOF
SET password_encryption = 'scram-sha-256';
\set password \`cat "$superuser/password"\`
ALTER ROLE yugabyte PASSWORD :'password';
EOF
        echo "the superuser has a password of its own now"
        continue
    fi
    tries=$((tries + 1))
    if [ "$tries" -gt 180 ]; then
        echo "no login to $PGHOST after $tries tries: $said" >&2
        exit 1
    fi
    sleep 1
done

# Passwords come from files and pass through psql variables: never on a command line.
login_role() {
    sql -d "$default_database" <<EOF
SET password_encryption = 'scram-sha-256';
\set role '$1'
\set password \`cat "$roles/$1"\`
SELECT format('CREATE ROLE %I LOGIN', :'role')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
EOF
}

login_role postern_monitor
for tenant in acme globex; do
    login_role "${tenant}_rw"
    login_role "${tenant}_ro"
    sql -d "$default_database" <<EOF
SELECT 'CREATE DATABASE $tenant'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$tenant') \gexec
REVOKE ALL ON DATABASE $tenant FROM PUBLIC;
GRANT CONNECT ON DATABASE $tenant TO ${tenant}_rw, ${tenant}_ro;
GRANT TEMPORARY ON DATABASE $tenant TO ${tenant}_rw;
EOF
    sql -d "$tenant" <<EOF
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO ${tenant}_rw;
GRANT USAGE ON SCHEMA public TO ${tenant}_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE ${tenant}_rw IN SCHEMA public
    GRANT SELECT ON TABLES TO ${tenant}_ro;
EOF
    echo "database $tenant and its roles are there"
done
