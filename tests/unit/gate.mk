UNIT_PROGRAMS += tests/unit/test_tenant
tests_unit_test_tenant_SOURCES = tests/unit/test_tenant.c
tests_unit_test_tenant_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_PROGRAMS += tests/unit/test_users
tests_unit_test_users_SOURCES = tests/unit/test_users.c
tests_unit_test_users_LDADD = $(LIBS_GATE) $(EXT_LIBS)
