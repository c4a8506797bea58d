noinst_LIBRARIES += libconf.a
libconf_a_SOURCES = \
	src/conf/check.c \
	src/conf/conf.c include/conf/conf.h \
	src/conf/meet.c \
	src/conf/reader.c \
	src/conf/unused.c \
	src/conf/values.c include/conf/values.h \
	include/conf/inside.h \
	src/conf/manual.c \
	include/conf/settings.def
