UNIT_TESTS += tests/unit/test_oauth
tests_unit_test_oauth_SOURCES = tests/unit/test_oauth.c
tests_unit_test_oauth_LDADD = $(LIBS_SESSION) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_lobby
tests_unit_test_lobby_SOURCES = tests/unit/test_lobby.c
tests_unit_test_lobby_LDADD = $(LIBS_SESSION) $(EXT_LIBS)
