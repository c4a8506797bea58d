# SPDX-License-Identifier: Apache-2.0
FUZZ_TARGETS += tests/fuzz/fuzz_oauth tests/fuzz/fuzz_session tests/fuzz/fuzz_node
FUZZ_SESSION_LIBS = $(LIBS_SESSION) $(EXT_LIBS)
tests_fuzz_fuzz_oauth_SOURCES = tests/fuzz/fuzz_oauth.c
tests_fuzz_fuzz_oauth_LDADD = $(FUZZ_SESSION_LIBS)
tests_fuzz_fuzz_session_SOURCES = tests/fuzz/fuzz_session.c tests/fuzz/fuzz_gate.h tests/fuzz/fuzz_kit.h
tests_fuzz_fuzz_session_LDADD = $(FUZZ_SESSION_LIBS)
tests_fuzz_fuzz_node_SOURCES = tests/fuzz/fuzz_node.c tests/fuzz/node_model.h tests/fuzz/fuzz_gate.h tests/fuzz/fuzz_kit.h
tests_fuzz_fuzz_node_LDADD = $(FUZZ_SESSION_LIBS)
if FUZZERS
tests_fuzz_fuzz_oauth_LDFLAGS = -fsanitize=fuzzer,address,undefined
tests_fuzz_fuzz_session_LDFLAGS = -fsanitize=fuzzer,address,undefined
tests_fuzz_fuzz_node_LDFLAGS = -fsanitize=fuzzer,address,undefined
else
tests_fuzz_fuzz_oauth_SOURCES += tests/fuzz/replay.c
tests_fuzz_fuzz_session_SOURCES += tests/fuzz/replay.c
tests_fuzz_fuzz_node_SOURCES += tests/fuzz/replay.c
endif
EXTRA_DIST += tests/fuzz/corpus/oauth tests/fuzz/corpus/session tests/fuzz/corpus/node
