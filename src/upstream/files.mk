noinst_LIBRARIES += libupstream.a
libupstream_a_SOURCES = \
	src/upstream/access.c include/upstream/access.h \
	src/upstream/backend.c include/upstream/backend.h \
	src/upstream/cancel.c include/upstream/cancel.h \
	src/upstream/credentials.c include/upstream/credentials.h \
	src/upstream/defaults.c include/upstream/defaults.h \
	src/upstream/eras.c \
	src/upstream/farewell.c include/upstream/farewell.h \
	src/upstream/handover.c include/upstream/handover.h \
	src/upstream/login.c include/upstream/login.h \
	src/upstream/login_check.c include/upstream/login_check.h \
	src/upstream/opening.c include/upstream/opening.h \
	src/upstream/pool.c include/upstream/pool.h \
	src/upstream/recycle.c include/upstream/recycle.h \
	src/upstream/shared_pool.c include/upstream/shared_pool.h \
	src/upstream/discovery.c include/upstream/discovery.h \
	src/upstream/member.c \
	src/upstream/probe.c include/upstream/probe.h \
	src/upstream/resolve.c include/upstream/resolve.h \
	src/upstream/terminate.c include/upstream/terminate.h \
	src/upstream/topology.c include/upstream/topology.h \
	src/upstream/welcome.c include/upstream/welcome.h \
	src/upstream/watch.c include/upstream/watch.h \
	src/upstream/watcher.c include/upstream/watcher.h
