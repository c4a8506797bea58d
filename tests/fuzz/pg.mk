FUZZ_TARGETS += tests/fuzz/fuzz_lexer tests/fuzz/fuzz_scram
tests_fuzz_fuzz_lexer_SOURCES = tests/fuzz/fuzz_lexer.c
tests_fuzz_fuzz_lexer_LDADD = $(LIBS_PG) $(EXT_LIBS)
tests_fuzz_fuzz_scram_SOURCES = tests/fuzz/fuzz_scram.c
tests_fuzz_fuzz_scram_LDADD = $(LIBS_PG) $(EXT_LIBS)
if !FUZZERS
tests_fuzz_fuzz_lexer_SOURCES += tests/fuzz/replay.c
tests_fuzz_fuzz_scram_SOURCES += tests/fuzz/replay.c
endif
if FUZZERS
tests_fuzz_fuzz_lexer_LDFLAGS = -fsanitize=fuzzer,address,undefined
tests_fuzz_fuzz_scram_LDFLAGS = -fsanitize=fuzzer,address,undefined
endif
EXTRA_DIST += tests/fuzz/corpus/lexer tests/fuzz/corpus/scram
FUZZ_TARGETS += tests/fuzz/fuzz_wire tests/fuzz/fuzz_inflight
tests_fuzz_fuzz_wire_SOURCES = tests/fuzz/fuzz_wire.c
tests_fuzz_fuzz_wire_LDADD = $(LIBS_PG) $(EXT_LIBS)
tests_fuzz_fuzz_inflight_SOURCES = tests/fuzz/fuzz_inflight.c
tests_fuzz_fuzz_inflight_LDADD = $(LIBS_PG) $(EXT_LIBS)
if FUZZERS
tests_fuzz_fuzz_wire_LDFLAGS = -fsanitize=fuzzer,address,undefined
tests_fuzz_fuzz_inflight_LDFLAGS = -fsanitize=fuzzer,address,undefined
else
tests_fuzz_fuzz_wire_SOURCES += tests/fuzz/replay.c
tests_fuzz_fuzz_inflight_SOURCES += tests/fuzz/replay.c
endif
EXTRA_DIST += tests/fuzz/corpus/wire tests/fuzz/corpus/inflight
