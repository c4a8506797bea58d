FUZZ_TARGETS += tests/fuzz/fuzz_conf
tests_fuzz_fuzz_conf_SOURCES = tests/fuzz/fuzz_conf.c
if !FUZZERS
tests_fuzz_fuzz_conf_SOURCES += tests/fuzz/replay.c
endif
if FUZZERS
tests_fuzz_fuzz_conf_LDFLAGS = -fsanitize=fuzzer,address,undefined
endif
tests_fuzz_fuzz_conf_LDADD = $(LIBS_CONF) $(EXT_LIBS)
EXTRA_DIST += tests/fuzz/corpus/conf
