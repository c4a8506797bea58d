# What tests and ./quickstart need besides the gate itself.
# SPDX-License-Identifier: Apache-2.0
noinst_PROGRAMS =
noinst_PROGRAMS += tests/tools/node
tests_tools_node_SOURCES = tests/tools/node.c

EXTRA_DIST += quickstart run-tests tests/tools/install.sh

dist_check_SCRIPTS += tests/tools/check-floors.py
