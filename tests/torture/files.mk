# The torture test's clients; tests/torture/run.py drives them.
# SPDX-License-Identifier: Apache-2.0
noinst_PROGRAMS += tests/torture/torture
tests_torture_torture_SOURCES = tests/torture/torture.c tests/torture/model.c tests/torture/script.c \
	tests/torture/check.c tests/torture/peer.c tests/torture/torture.h
tests_torture_torture_LDADD = $(OPENSSL_LIBS)
