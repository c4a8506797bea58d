UNIT_TESTS += tests/unit/test_oauth
tests_unit_test_oauth_SOURCES = tests/unit/test_oauth.c
tests_unit_test_oauth_LDADD = $(LIBS_SESSION) $(EXT_LIBS)
