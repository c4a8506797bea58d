noinst_LIBRARIES += libbase.a
libbase_a_SOURCES = \
	src/base/address.c include/base/address.h \
	src/base/budget.c include/base/budget.h \
	src/base/buf.c include/base/buf.h \
	include/base/banned.h include/base/check.h \
	src/base/clock.c include/base/clock.h \
	src/base/counters.c include/base/counters.h include/base/counters.def \
	src/base/file.c include/base/file.h \
	include/base/list.h \
	src/base/log.c include/base/log.h \
	src/base/map.c include/base/map.h \
	src/base/mem.c include/base/mem.h \
	src/base/reasons.c include/base/reasons.h include/base/reasons.def \
	src/base/sink.c include/base/sink.h \
	include/base/snapshot.h \
	src/base/text.c include/base/text.h \
	src/base/words.c include/base/words.h
