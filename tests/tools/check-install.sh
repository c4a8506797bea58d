#!/bin/sh
# What `make install` puts where, into a folder of its own (DESTDIR), for each way of asking for the
# systemd files; whether they are what systemd takes; that a second installation leaves a configuration
# alone, and that nothing else is left behind by `make uninstall`. Speaks TAP; run-tests runs it on a
# build with --prefix=/usr --sysconfdir=/etc --with-systemdsystemunitdir:
#
#   tests/tools/check-install.sh BUILD
# SPDX-License-Identifier: Apache-2.0
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd) || exit
folder=$(mktemp -d) || exit
trap 'rm -rf "$folder"' EXIT
unset MAKEFLAGS MFLAGS DESTDIR
count=0 failed=0
ok()
{
    name=$1
    shift
    count=$((count + 1))
    if said=$("$@" 2>&1); then
        echo "ok $count - $name"
    else
        failed=$((failed + 1))
        echo "not ok $count - $name"
        printf '%s\n' "$said" | sed 's/^/# /'
    fi
}
has() { grep -qxF -e "$2" "$1" || { cat "$1"; return 1; }; }
lacks() { ! grep -n -e "$2" "$1"; }
is_missing() { ! ls -d "$1"; }
same_list() { [ "$1" = "$2" ] || { printf 'found:\n%s\nwanted:\n%s\n' "$1" "$2"; return 1; }; }

# ---- the build at hand, as a packager installs it ----

out=$folder/out
ok "make install" make -s -C "$build" install DESTDIR="$out"
units=$(find "$out" -name postern.service)
unit=${units%%
*}
ok "one unit, where systemd looks" sh -c 'case "$1" in
    "$2"/lib/systemd/system/postern.service | "$2"/usr/lib/systemd/system/postern.service) ;;
    *) echo "$1"; false ;; esac' sh "$units" "$out"
ok "the unit starts the program of the prefix" has "$unit" "ExecStart=/usr/bin/postern --config /etc/postern/postern.ini"
ok "and checks its configuration" has "$unit" "ExecStartPre=/usr/bin/postern --check --config /etc/postern/postern.ini"
ok "nothing is left to fill in" lacks "$unit" '@[A-Za-z_]*@\|\${'
ok "the program" test -x "$out/usr/bin/postern"
ok "the example is the configuration where there is none" cmp "$top/conf/postern.ini" "$out/etc/postern/postern.ini"
doc=$out/usr/share/doc/postern
# missing_links: what the documents under $doc link to and is not there
missing_links()
{
    find "$doc" -name '*.md' | while read -r page; do
        sed '/^```/,/^```/d' "$page" | grep -o '](\([^)#: ]*\)[)#]' | sed 's/^](//; s/[)#]$//' | while read -r link; do
            [ -z "$link" ] || [ -e "$(dirname "$page")/$link" ] || echo "$page: $link"
        done
    done
}
ok "the documents" test -f "$doc/docs/operations.md"
ok "every link of the installed documents leads somewhere" same_list "$(missing_links)" ""
ok "manual pages" test -f "$out/usr/share/man/man5/postern.ini.5"

if command -v systemd-analyze > /dev/null; then
    # What every service stands on, in a root that has nothing else.
    mkdir -p "$out/run/systemd/system"
    for base in sysinit basic shutdown network-online nss-lookup multi-user; do
        printf '[Unit]\nDescription=%s\n' $base > "$out/run/systemd/system/$base.target"
    done
    ok "systemd-analyze verify" sh -c '
        said=$(systemd-analyze verify --man=no --root="$1" "$2" 2>&1 | grep -i postern)
        [ -z "$said" ] || { echo "$said"; false; }' sh "$out" postern.service
    ok "and finds a fault where there is one" sh -c '
        sed -i s/^ExecStart=/ExecStrat=/ "$2" && systemd-analyze verify --man=no --root="$1" postern.service 2>&1 |
        grep ExecStrat > /dev/null' sh "$out" "$unit"
    rm -rf "$out/run"
fi
if command -v systemd-sysusers > /dev/null; then
    ok "systemd-sysusers reads the account" sh -c '
        systemd-sysusers --dry-run --root="$1" postern.conf 2>&1 | tee /dev/stderr | grep -qi "postern"' sh "$out"
    mkdir -p "$out/etc"
    ok "systemd-sysusers makes it" sh -c '
        systemd-sysusers --root="$1" postern.conf && grep "^postern:" "$1/etc/passwd"' sh "$out"
fi
if command -v systemd-tmpfiles > /dev/null && [ "$(id -u)" = 0 ]; then
    ok "systemd-tmpfiles makes the folders" sh -c '
        systemd-tmpfiles --create --root="$1" postern.conf &&
        stat -c "%a %n" "$1/var/log/postern" "$1/etc/postern" &&
        [ "$(stat -c %a "$1/var/log/postern")" = 750 ] && [ "$(stat -c %a "$1/etc/postern")" = 755 ]' sh "$out"
    rm -rf "$out/var"
fi
rm -f "$out"/etc/passwd* "$out"/etc/group* "$out"/etc/shadow* "$out"/etc/gshadow* "$out"/etc/.pwd.lock

echo "; mine" > "$out/etc/postern/postern.ini"
ok "a second make install" make -s -C "$build" install DESTDIR="$out"
ok "leaves a configuration as it is" has "$out/etc/postern/postern.ini" "; mine"
ok "make uninstall" make -s -C "$build" uninstall DESTDIR="$out"
ok "leaves the changed configuration and nothing else" same_list \
    "$(cd "$out" && find . -type f -o -type l)" ./etc/postern/postern.ini
rm -rf "$out"
make -s -C "$build" install DESTDIR="$out" > /dev/null 2>&1
ok "make uninstall of an unchanged installation" make -s -C "$build" uninstall DESTDIR="$out"
ok "leaves no file" same_list "$(find "$out" -type f -o -type l)" ""

# ---- what configure makes of its arguments; nothing is compiled ----

# files ARGUMENTS...: the unit, the account and the folders that make install-data installs
files()
{
    rm -rf "$folder/build" "$folder/out"
    mkdir "$folder/build"
    (cd "$folder/build" && "$top/configure" -q --cache-file="$folder/cache" "$@" > configure.log 2>&1 &&
        make -s install-data DESTDIR="$folder/out" > install.log 2>&1) ||
        { tail -n 5 "$folder/build/"*.log; return 1; }
    (cd "$folder/out" && find . -name 'postern.service' -o -path '*.d/postern.conf' | LC_ALL=C sort | tr '\n' ' ')
}
unit_line() { has "$(find "$folder/out" -name postern.service)" "$1"; }

ok "no unit unless asked for" same_list "$(files)" ""
ok "no unit with --without-systemdsystemunitdir" same_list "$(files --without-systemdsystemunitdir)" ""
ok "all three in a directory that is named" same_list \
    "$(files --prefix=/opt/postern --with-systemdsystemunitdir=/etc/systemd/system)" \
    "./etc/systemd/system/postern.service ./etc/sysusers.d/postern.conf ./etc/tmpfiles.d/postern.conf "
ok "the unit's paths follow --prefix" unit_line \
    "ExecStart=/opt/postern/bin/postern --config /opt/postern/etc/postern/postern.ini"
ok "and so do the folders'" grep -q '^d */opt/postern/etc/postern ' "$folder/out/etc/tmpfiles.d/postern.conf"
ok "and the example" test -f "$folder/out/opt/postern/etc/postern/postern.ini"
ok "a directory below the prefix" same_list \
    "$(files --prefix=/usr --with-systemdsystemunitdir='${prefix}/lib/systemd/system')" \
    "./usr/lib/systemd/system/postern.service ./usr/lib/sysusers.d/postern.conf ./usr/lib/tmpfiles.d/postern.conf "
refused() { ! said_by=$(files "$@") && printf '%s' "$said_by" | grep -q -e "$words"; }
words="takes yes, no or an absolute directory"
ok "a directory that is not absolute is refused" refused --with-systemdsystemunitdir=lib/systemd
ok "an empty one too" refused --with-systemdsystemunitdir=

# As pkg-config tells it; the machine may have no systemd.pc, or one of its own.
mkdir "$folder/pc"
cat > "$folder/pc/systemd.pc" << 'END'
systemdsystemunitdir=/somewhere/systemd/system
sysusersdir=/somewhere/sysusers.d
tmpfilesdir=/somewhere/tmpfiles.d
Name: systemd
Description: of the test
Version: 252
END
PKG_CONFIG_PATH=$folder/pc
export PKG_CONFIG_PATH
rm -f "$folder/cache"
ok "README: --sysconfdir=/etc --with-systemdsystemunitdir: where systemd.pc says" same_list \
    "$(files --sysconfdir=/etc --with-systemdsystemunitdir)" \
    "./somewhere/systemd/system/postern.service ./somewhere/sysusers.d/postern.conf ./somewhere/tmpfiles.d/postern.conf "
ok "with the paths of the default prefix" unit_line \
    "ExecStart=/usr/local/bin/postern --config /etc/postern/postern.ini"
ok "and no folder called yes" is_missing "$folder/build/yes"
ok "the same with =yes" same_list "$(files --with-systemdsystemunitdir=yes)" \
    "./somewhere/systemd/system/postern.service ./somewhere/sysusers.d/postern.conf ./somewhere/tmpfiles.d/postern.conf "
cat > "$folder/pc/without" << 'END'
#!/bin/sh
case " $*" in *" systemd") exit 1 ;; esac
exec pkg-config "$@"
END
chmod +x "$folder/pc/without"
words="systemd.pc was not found"
PKG_CONFIG=$folder/pc/without
export PKG_CONFIG
rm -f "$folder/cache"
ok "no systemd.pc: configure says what to do" refused --with-systemdsystemunitdir

echo "1..$count"
[ $failed = 0 ]
