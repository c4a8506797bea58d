UNIT_PROGRAMS += tests/unit/test_tenant
tests_unit_test_tenant_SOURCES = tests/unit/test_tenant.c
tests_unit_test_tenant_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_PROGRAMS += tests/unit/test_users
tests_unit_test_users_SOURCES = tests/unit/test_users.c
tests_unit_test_users_LDADD = $(LIBS_GATE) $(EXT_LIBS)
UNIT_PROGRAMS += tests/unit/test_lease
tests_unit_test_lease_SOURCES = tests/unit/test_lease.c
tests_unit_test_lease_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_PROGRAMS += tests/unit/test_limiter
tests_unit_test_limiter_SOURCES = tests/unit/test_limiter.c tests/unit/limiter_kit.h
tests_unit_test_limiter_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_PROGRAMS += tests/unit/test_limiter_redis
tests_unit_test_limiter_redis_SOURCES = tests/unit/test_limiter_redis.c tests/unit/limiter_kit.h
tests_unit_test_limiter_redis_LDADD = $(LIBS_GATE) $(EXT_LIBS)
