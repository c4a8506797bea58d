UNIT_PROGRAMS += tests/unit/test_credentials
tests_unit_test_credentials_SOURCES = tests/unit/test_credentials.c
tests_unit_test_credentials_LDADD = $(LIBS_UPSTREAM) $(EXT_LIBS)
