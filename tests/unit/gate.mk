UNIT_TESTS += tests/unit/test_tenant
tests_unit_test_tenant_SOURCES = tests/unit/test_tenant.c
tests_unit_test_tenant_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_TESTS += tests/unit/test_users
tests_unit_test_users_SOURCES = tests/unit/test_users.c
tests_unit_test_users_LDADD = $(LIBS_GATE) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_lease
tests_unit_test_lease_SOURCES = tests/unit/test_lease.c
tests_unit_test_lease_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_TESTS += tests/unit/test_outage
tests_unit_test_outage_SOURCES = tests/unit/test_outage.c
tests_unit_test_outage_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_TESTS += tests/unit/test_limiter
tests_unit_test_limiter_SOURCES = tests/unit/test_limiter.c tests/unit/limiter_kit.h
tests_unit_test_limiter_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_TESTS += tests/unit/test_limiter_redis
tests_unit_test_limiter_redis_SOURCES = tests/unit/test_limiter_redis.c tests/unit/limiter_kit.h
tests_unit_test_limiter_redis_LDADD = $(LIBS_GATE) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_token
tests_unit_test_token_SOURCES = tests/unit/test_token.c tests/unit/signing.h
tests_unit_test_token_LDADD = $(LIBS_GATE) $(EXT_LIBS) $(JWT_LIBS)
UNIT_TESTS += tests/unit/test_jws
tests_unit_test_jws_SOURCES = tests/unit/test_jws.c tests/unit/signing.h
tests_unit_test_jws_LDADD = $(LIBS_GATE) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_keys
tests_unit_test_keys_SOURCES = tests/unit/test_keys.c tests/unit/signing.h
tests_unit_test_keys_LDADD = $(LIBS_GATE) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_audit
tests_unit_test_audit_SOURCES = tests/unit/test_audit.c
tests_unit_test_audit_LDADD = $(LIBS_GATE) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_throttle
tests_unit_test_throttle_SOURCES = tests/unit/test_throttle.c
tests_unit_test_throttle_LDADD = $(LIBS_GATE) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_tally
tests_unit_test_tally_SOURCES = tests/unit/test_tally.c
tests_unit_test_tally_LDADD = $(LIBS_GATE) $(EXT_LIBS)

UNIT_TESTS += tests/unit/test_key_sets
tests_unit_test_key_sets_SOURCES = tests/unit/test_key_sets.c
tests_unit_test_key_sets_LDADD = $(LIBS_GATE) $(EXT_LIBS)
EXTRA_DIST += tests/unit/key-sets tests/tools/make-key-sets.py
