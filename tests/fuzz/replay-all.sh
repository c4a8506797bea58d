#!/bin/sh
# Runs every fuzz target on its corpus: what was found once stays found. Speaks TAP. The targets
# are those built without --enable-fuzzers; a libFuzzer program runs the files it is given, too.
# SPDX-License-Identifier: Apache-2.0
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
build=${top_builddir:-.}
n=0 failed=0
for source in "$top"/tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    corpus=$top/tests/fuzz/corpus/${name#fuzz_}
    n=$((n + 1))
    if [ -d "$corpus" ] && out=$("$build/tests/fuzz/$name" "$corpus"/* 2>&1); then
        echo "ok $n - $name: $(find "$corpus" -type f | wc -l) inputs"
    else
        echo "not ok $n - $name"
        echo "$out" | tail -n 40 | sed 's/^/# /'
        failed=1
    fi
done
echo "1..$n"
exit $failed
