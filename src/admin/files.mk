noinst_LIBRARIES += libadmin.a
libadmin_a_SOURCES = \
	src/admin/console.c include/admin/console.h \
	src/admin/http.c include/admin/http.h \
	src/admin/http_peers.c include/admin/http_peers.h \
	src/admin/http_request.c include/admin/http_request.h \
	src/admin/metrics.c include/admin/metrics.h \
	src/admin/page.c \
	src/admin/report.c \
	src/admin/table.c include/admin/table.h
