UNIT_TESTS += tests/unit/test_loop
tests_unit_test_loop_SOURCES = tests/unit/test_loop.c tests/unit/waiting.h
tests_unit_test_loop_LDADD = $(LIBS_IO) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_listen
tests_unit_test_listen_SOURCES = tests/unit/test_listen.c tests/unit/waiting.h
tests_unit_test_listen_LDADD = $(LIBS_IO) $(EXT_LIBS)
