noinst_LIBRARIES += libio.a
libio_a_SOURCES = \
	include/io/gather.h \
	src/io/intake.c include/io/intake.h \
	src/io/linger.c include/io/linger.h \
	src/io/listen.c include/io/listen.h \
	src/io/loop.c include/io/loop.h \
	src/io/mailbox.c include/io/mailbox.h \
	src/io/stream.c include/io/stream.h \
	src/io/tls.c include/io/tls.h
