UNIT_TESTS += tests/unit/test_scram
tests_unit_test_scram_SOURCES = tests/unit/test_scram.c
tests_unit_test_scram_LDADD = $(LIBS_PG) $(EXT_LIBS)
UNIT_TESTS += tests/unit/test_lexer
tests_unit_test_lexer_SOURCES = tests/unit/test_lexer.c
tests_unit_test_lexer_LDADD = $(LIBS_PG) $(EXT_LIBS)
