FUZZ_TARGETS += tests/fuzz/fuzz_http
tests_fuzz_fuzz_http_SOURCES = tests/fuzz/fuzz_http.c
if FUZZERS
tests_fuzz_fuzz_http_LDFLAGS = -fsanitize=fuzzer,address,undefined
else
tests_fuzz_fuzz_http_SOURCES += tests/fuzz/replay.c
endif
tests_fuzz_fuzz_http_LDADD = $(LIBS_ADMIN) $(EXT_LIBS)
EXTRA_DIST += tests/fuzz/corpus/http
