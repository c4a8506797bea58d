# Unit tests speak TAP; each links its own floor and the ones below, so that the linker
# proves the floors. One .mk per folder of src.
AM_TESTS_ENVIRONMENT = top_srcdir='$(top_srcdir)'; export top_srcdir; \
	top_builddir='$(top_builddir)'; export top_builddir;
LOG_DRIVER = env AM_TAP_AWK='$(AWK)' $(SHELL) $(top_srcdir)/build-aux/tap-driver.sh
UNIT_TESTS =
EXTRA_DIST += tests/unit/tap.h

include tests/unit/base.mk
include tests/unit/conf.mk
include tests/unit/io.mk
include tests/unit/pg.mk
include tests/unit/gate.mk
include tests/unit/upstream.mk
include tests/unit/session.mk
include tests/unit/admin.mk

check_PROGRAMS += $(UNIT_TESTS)
TESTS = $(UNIT_TESTS) $(dist_check_SCRIPTS)
