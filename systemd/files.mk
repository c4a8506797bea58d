# The unit is made from a template because it names where the program and its configuration
# are; it is installed only when configure is told where (--with-systemdsystemunitdir).
EXTRA_DIST += systemd/postern.service.in systemd/postern.sysusers
AM_DISTCHECK_CONFIGURE_FLAGS = --with-systemdsystemunitdir='$${prefix}/lib/systemd/system'

UNIT_FILES = systemd/postern.service systemd/postern.conf
CLEANFILES += $(UNIT_FILES)

if INSTALL_UNIT
sysusersdir = $(prefix)/lib/sysusers.d
systemdsystemunit_DATA = systemd/postern.service
sysusers_DATA = systemd/postern.conf
endif

systemd/postern.service: $(srcdir)/systemd/postern.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd && \
	sed -e 's|@bindir[@]|$(bindir)|g' -e 's|@sysconfdir[@]|$(sysconfdir)|g' \
	    -e 's|@UNIT_TYPE[@]|$(UNIT_TYPE)|g' \
	    $(srcdir)/systemd/postern.service.in >$@.new && mv $@.new $@

systemd/postern.conf: $(srcdir)/systemd/postern.sysusers
	$(AM_V_GEN)$(MKDIR_P) systemd && cp $(srcdir)/systemd/postern.sysusers $@
