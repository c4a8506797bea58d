# For ./quickstart and ./run-tests (sourced): Debian packages that are missing, and a build.
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034

BUILD_PACKAGES=(gcc make autoconf automake pkgconf libc6-dev libevent-dev libssl-dev libpq-dev
    libhiredis-dev libjwt-dev libjansson-dev libinih-dev libsystemd-dev)
STAND_PACKAGES=(python3 postgresql-15 postgresql-client-15 redis-server openssl)
TEST_PACKAGES=(clang libclang-rt-dev python3-pytest python3-pytest-xdist python3-psycopg python3-psycopg2
    python3-asyncpg python3-yaml)

# Installs those of the packages named that are not there, and says which. Services that
# packages would start are not: the stand brings its own.
install_missing()
{
    local missing=() package
    for package; do
        case $(dpkg-query -W -f '${Status}' "$package" 2> /dev/null) in
        *" installed") ;;
        *) missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "== Installing what is missing: ${missing[*]}"
    local sudo=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || {
            echo "FAILED: these packages are missing and only root can install them: ${missing[*]}" >&2
            return 1
        }
        sudo=(sudo)
    fi
    local log policy=/usr/sbin/policy-rc.d ours=no status=0
    log=$(mktemp)
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy > /dev/null
        "${sudo[@]}" chmod +x $policy
        ours=yes
    fi
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get -q update && exec apt-get -q install -y --no-install-recommends "$@"
        ' sh "${missing[@]}" > "$log" 2>&1 < /dev/null || status=$?
    [ $ours = no ] || "${sudo[@]}" rm -f $policy
    if [ $status != 0 ]; then
        tail -n 40 "$log" >&2
        echo "FAILED: apt-get install" >&2
    fi
    rm -f "$log"
    return $status
}

# build_in DIR [configure's arguments]: everything `make` makes, out of tree. CC may be set.
build_in()
{
    local top
    top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    mkdir -p "$1"
    if [ ! -x "$top/configure" ] || [ ! -e "$top/Makefile.in" ] ||
        [ "$top/configure.ac" -nt "$top/configure" ]; then
        "$top/autogen.sh" || return
    fi
    (
        cd "$1" || exit
        shift
        # The arguments decide: configure again when they are not those of last time.
        if [ ! -e Makefile ] || [ "$(cat configured 2> /dev/null)" != "${CC:-} $*" ] ||
            [ "$top/configure" -nt config.status ]; then
            "$top/configure" "$@" && printf '%s' "${CC:-} $*" > configured || exit
        fi
        make -j"$(nproc)"
    )
}
