UNIT_TESTS += tests/unit/test_admin
tests_unit_test_admin_SOURCES = tests/unit/test_admin.c
tests_unit_test_admin_LDADD = $(LIBS_ADMIN) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_http
tests_unit_test_http_SOURCES = tests/unit/test_http.c
tests_unit_test_http_LDADD = $(LIBS_ADMIN) $(EXT_LIBS)
