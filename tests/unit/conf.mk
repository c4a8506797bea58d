UNIT_TESTS += tests/unit/test_conf
tests_unit_test_conf_SOURCES = tests/unit/test_conf.c
tests_unit_test_conf_LDADD = $(LIBS_CONF) $(EXT_LIBS)
EXTRA_DIST += conf/postern.ini man/postern.ini.5
