# Fuzz targets. With --enable-fuzzers (clang) they are libFuzzer programs; without, the same
# sources are linked with tests/fuzz/replay.c, which runs files given as arguments, and
# `make check` replays the corpus.
FUZZ_TARGETS =
include tests/fuzz/pg.mk
include tests/fuzz/gate.mk
include tests/fuzz/conf.mk
EXTRA_DIST += tests/fuzz/replay.c
check_PROGRAMS += $(FUZZ_TARGETS)
