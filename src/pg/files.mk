noinst_LIBRARIES += libpg.a
libpg_a_SOURCES = \
	src/pg/scram.c include/pg/scram.h
