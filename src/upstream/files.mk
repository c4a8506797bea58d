noinst_LIBRARIES += libupstream.a
libupstream_a_SOURCES = \
	src/upstream/credentials.c include/upstream/credentials.h \
	src/upstream/discovery.c include/upstream/discovery.h \
	src/upstream/member.c \
	src/upstream/probe.c include/upstream/probe.h \
	src/upstream/resolve.c include/upstream/resolve.h \
	src/upstream/topology.c include/upstream/topology.h \
	src/upstream/watch.c include/upstream/watch.h \
	src/upstream/watcher.c include/upstream/watcher.h
