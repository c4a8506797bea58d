# What tests and ./quickstart need besides the gate itself.
# SPDX-License-Identifier: Apache-2.0
noinst_PROGRAMS =
noinst_PROGRAMS += tests/tools/node
tests_tools_node_SOURCES = tests/tools/node.c

EXTRA_DIST += quickstart run-tests tests/tools/install.sh tests/tools/bare-root tests/tools/check-install.sh \
	tests/stand tests/wire tests/cuts

dist_check_SCRIPTS += tests/tools/check-floors.py tests/tools/check-hardening.py tests/tools/check-manual.py \
	tests/tools/check-peers.py

# Walks every failure that can be injected: only where there is any.
if FAULTS
dist_check_SCRIPTS += tests/tools/walk-faults.sh
else
EXTRA_DIST += tests/tools/walk-faults.sh
endif
