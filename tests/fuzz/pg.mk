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
