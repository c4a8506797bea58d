# Fuzz targets. With --enable-fuzzers (clang) they are libFuzzer programs; without, the same
# sources are linked with tests/fuzz/replay.c, which runs files given as arguments, and
# `make check` replays the corpus. `make fuzzers` builds them all.
# SPDX-License-Identifier: Apache-2.0
FUZZ_TARGETS =
include tests/fuzz/pg.mk
include tests/fuzz/gate.mk
include tests/fuzz/conf.mk
include tests/fuzz/session.mk
include tests/fuzz/admin.mk
EXTRA_DIST += tests/fuzz/replay.c
check_PROGRAMS += $(FUZZ_TARGETS)
dist_check_SCRIPTS += tests/fuzz/replay-all.sh

fuzzers: $(FUZZ_TARGETS)
.PHONY: fuzzers
