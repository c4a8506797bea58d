noinst_LIBRARIES += libpg.a
libpg_a_SOURCES = \
	src/pg/body.c include/pg/body.h \
	src/pg/execute.c include/pg/execute.h \
	src/pg/glance.c \
	src/pg/inflight.c include/pg/inflight.h \
	src/pg/lexer.c include/pg/lexer.h \
	src/pg/options.c include/pg/options.h \
	src/pg/prepared.c include/pg/prepared.h \
	src/pg/setconfig.c include/pg/setconfig.h \
	src/pg/resets.c include/pg/resets.h \
	src/pg/scram.c include/pg/scram.h \
	src/pg/statement.c include/pg/statement.h \
	src/pg/varset.c include/pg/varset.h \
	src/pg/wire.c include/pg/wire.h
