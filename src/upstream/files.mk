noinst_LIBRARIES += libupstream.a
libupstream_a_SOURCES = \
	src/upstream/credentials.c include/upstream/credentials.h \
	src/upstream/topology.c include/upstream/topology.h \
	src/upstream/watcher.c include/upstream/watcher.h
