noinst_LIBRARIES += libconf.a
libconf_a_SOURCES = \
	src/conf/conf.c include/conf/conf.h \
	src/conf/values.c include/conf/values.h \
	src/conf/manual.c \
	include/conf/settings.def
