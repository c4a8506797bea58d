noinst_LIBRARIES += libpg.a
libpg_a_SOURCES = \
	src/pg/glance.c \
	src/pg/lexer.c include/pg/lexer.h \
	src/pg/scram.c include/pg/scram.h \
	src/pg/statement.c include/pg/statement.h
