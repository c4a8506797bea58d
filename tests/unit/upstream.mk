UNIT_PROGRAMS += tests/unit/test_topology
tests_unit_test_topology_SOURCES = tests/unit/test_topology.c
tests_unit_test_topology_LDADD = $(LIBS_UPSTREAM) $(EXT_LIBS)
