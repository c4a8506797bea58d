UNIT_TESTS += tests/unit/test_credentials
tests_unit_test_credentials_SOURCES = tests/unit/test_credentials.c
tests_unit_test_credentials_LDADD = $(LIBS_UPSTREAM) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_topology
tests_unit_test_topology_SOURCES = tests/unit/test_topology.c
tests_unit_test_topology_LDADD = $(LIBS_UPSTREAM) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_resolve
tests_unit_test_resolve_SOURCES = tests/unit/test_resolve.c
tests_unit_test_resolve_LDADD = $(LIBS_UPSTREAM) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_watcher
tests_unit_test_watcher_SOURCES = tests/unit/test_watcher.c tests/unit/postgres.h
tests_unit_test_watcher_LDADD = $(LIBS_UPSTREAM) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_login
tests_unit_test_login_SOURCES = tests/unit/test_login.c tests/unit/pool_kit.h tests/unit/fake_server.h \
	tests/unit/certificates.h tests/unit/waiting.h
tests_unit_test_login_LDADD = $(LIBS_UPSTREAM) $(EXT_LIBS)
