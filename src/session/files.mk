noinst_LIBRARIES += libsession.a
libsession_a_SOURCES = \
	src/session/admit.c \
	src/session/companions.c include/session/companions.h \
	src/session/console.c include/session/console.h \
	src/session/copying.c include/session/copying.h \
	src/session/crowd.c include/session/crowd.h \
	src/session/defaults.c include/session/defaults.h \
	src/session/forward.c \
	src/session/generation.c include/session/generation.h \
	src/session/greet.c include/session/greet.h \
	src/session/input.c include/session/input.h \
	src/session/lobby.c include/session/lobby.h \
	src/session/lost.c include/session/lost.h \
	src/session/machine.c include/session/machine.h \
	src/session/memory.c include/session/memory.h \
	src/session/naming.c include/session/naming.h \
	src/session/oauth.c include/session/oauth.h \
	src/session/pins.c include/session/pins.h \
	src/session/prepare.c include/session/prepare.h \
	src/session/prove.c \
	src/session/purposes.c include/session/purposes.h \
	src/session/registry.c include/session/registry.h \
	src/session/relay.c include/session/relay.h \
	src/session/replay.c include/session/replay.h \
	src/session/reply.c \
	src/session/sequences.c include/session/sequences.h \
	src/session/session.c include/session/session.h \
	src/session/standing.c include/session/standing.h \
	src/session/statements.c include/session/statements.h \
	src/session/told.c \
	src/session/touched.c include/session/touched.h \
	src/session/variables.c include/session/variables.h \
	src/session/walk.c include/session/walk.h
