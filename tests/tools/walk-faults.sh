#!/bin/sh
# Lets the Nth allocation or system call of `postern --check` fail, N = 1, 2, ... until a run is
# clean: each must end by itself, with a verdict, never by a signal. Speaks TAP; needs a build
# with --enable-faults.
# SPDX-License-Identifier: Apache-2.0
build=${top_builddir:-.}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
umask 077
printf '"app" "secret"\n' > "$dir/passwords"
: > "$dir/users"
cat > "$dir/postern.ini" << END
[postern]
workers = 1
users_file = $dir/users
[listener main]
tls = off
[plan small]
queries_per_second = 10
[tenant acme]
plan = small
[cluster main]
hosts = 127.0.0.1:5433
tls = disable
credentials = $dir/passwords
[database app]
cluster = main
dbname = app
END
n=0 crashed=0
while [ $n -lt 2000 ]; do
    n=$((n + 1))
    POSTERN_FAULT=$n "$build/postern" --check -c "$dir/postern.ini" > "$dir/out" 2>&1
    status=$?
    grep -q "^postern: fault injected" "$dir/out" || break
    if [ $status -gt 1 ]; then
        crashed=$((crashed + 1))
        echo "# POSTERN_FAULT=$n: exit status $status: $(tail -n 1 "$dir/out")"
    fi
done
if [ $status = 0 ] && [ $n -gt 1 ]; then
    echo "ok 1 - after $((n - 1)) failures there is none left, and the configuration is good"
else
    echo "not ok 1 - stopped at $n with status $status"
    sed 's/^/# /' "$dir/out"
    crashed=1
fi
[ $crashed = 0 ] && echo "ok 2 - none of them was a crash" || echo "not ok 2 - $crashed of them were crashes"
echo "1..2"
[ $crashed = 0 ]
