noinst_LIBRARIES += libgate.a
libgate_a_SOURCES = \
	src/gate/audit.c include/gate/audit.h include/gate/audit.def \
	src/gate/jwk.c include/gate/jwk.h \
	src/gate/jws.c include/gate/jws.h \
	src/gate/keys.c include/gate/keys.h \
	src/gate/limiter.c include/gate/limiter.h \
	src/gate/limiter_shared.c include/gate/limiter_shared.h \
	src/gate/lease.c include/gate/lease.h \
	src/gate/meter.c include/gate/meter.h \
	src/gate/outage.c include/gate/outage.h \
	src/gate/redis.c include/gate/redis.h \
	src/gate/redis_access.c include/gate/redis_access.h \
	src/gate/redis_guard.c include/gate/redis_guard.h \
	src/gate/redis_tls.c include/gate/redis_tls.h \
	src/gate/redis_url.c include/gate/redis_url.h \
	src/gate/tally.c include/gate/tally.h \
	src/gate/tenant.c include/gate/tenant.h \
	src/gate/throttle.c include/gate/throttle.h \
	src/gate/token.c include/gate/token.h \
	src/gate/users.c include/gate/users.h
