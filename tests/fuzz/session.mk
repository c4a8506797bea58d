# SPDX-License-Identifier: Apache-2.0
FUZZ_TARGETS += tests/fuzz/fuzz_oauth
tests_fuzz_fuzz_oauth_SOURCES = tests/fuzz/fuzz_oauth.c
tests_fuzz_fuzz_oauth_LDADD = $(LIBS_SESSION) $(EXT_LIBS)
if FUZZERS
tests_fuzz_fuzz_oauth_LDFLAGS = -fsanitize=fuzzer,address,undefined
else
tests_fuzz_fuzz_oauth_SOURCES += tests/fuzz/replay.c
endif
EXTRA_DIST += tests/fuzz/corpus/oauth
FUZZ_TARGETS += tests/fuzz/fuzz_session
tests_fuzz_fuzz_session_SOURCES = tests/fuzz/fuzz_session.c
tests_fuzz_fuzz_session_LDADD = $(LIBS_SESSION) $(EXT_LIBS)
if FUZZERS
tests_fuzz_fuzz_session_LDFLAGS = -fsanitize=fuzzer,address,undefined
else
tests_fuzz_fuzz_session_SOURCES += tests/fuzz/replay.c
endif
EXTRA_DIST += tests/fuzz/corpus/session
