FUZZ_TARGETS += tests/fuzz/fuzz_token
tests_fuzz_fuzz_token_SOURCES = tests/fuzz/fuzz_token.c
tests_fuzz_fuzz_token_LDADD = $(LIBS_GATE) $(EXT_LIBS)
FUZZ_TARGETS += tests/fuzz/fuzz_jwks
tests_fuzz_fuzz_jwks_SOURCES = tests/fuzz/fuzz_jwks.c
tests_fuzz_fuzz_jwks_LDADD = $(LIBS_GATE) $(EXT_LIBS)
if FUZZERS
tests_fuzz_fuzz_token_LDFLAGS = -fsanitize=fuzzer,address,undefined
tests_fuzz_fuzz_jwks_LDFLAGS = -fsanitize=fuzzer,address,undefined
else
tests_fuzz_fuzz_token_SOURCES += tests/fuzz/replay.c
tests_fuzz_fuzz_jwks_SOURCES += tests/fuzz/replay.c
endif
EXTRA_DIST += tests/fuzz/corpus/token tests/fuzz/corpus/jwks
