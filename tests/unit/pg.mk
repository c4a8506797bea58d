UNIT_PROGRAMS += tests/unit/test_scram
tests_unit_test_scram_SOURCES = tests/unit/test_scram.c
tests_unit_test_scram_LDADD = $(LIBS_PG) $(EXT_LIBS)
