#!/bin/sh
# The application of compose.yaml: a DSN, a token, and a row a second.
# SPDX-License-Identifier: Apache-2.0
set -u
: "${DSN:?}" "${TOKEN_FILE:?}"

query() {
    PGPASSWORD=$(cat "$TOKEN_FILE") PGCONNECT_TIMEOUT=10 \
        psql "$DSN" -v ON_ERROR_STOP=1 -qAtX -c "$1"
}

until query 'CREATE TABLE IF NOT EXISTS visit (at timestamptz NOT NULL DEFAULT now())'; do
    sleep 1
done
while :; do
    query "INSERT INTO visit DEFAULT VALUES;
           SELECT count(*) || ' visits, written by ' || current_user || ' on node ' ||
                  coalesce(host(inet_server_addr()), '?') FROM visit"
    sleep 1
done
