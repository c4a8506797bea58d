# The unit, the account and the folders are made from templates because they name where the program
# and its configuration are; they are installed only when configure is told where
# (--with-systemdsystemunitdir).
EXTRA_DIST += systemd/postern.service.in systemd/postern.sysusers systemd/postern.tmpfiles.in
AM_DISTCHECK_CONFIGURE_FLAGS = --with-systemdsystemunitdir='$${prefix}/lib/systemd/system'

UNIT_FILES = systemd/postern.service systemd/sysusers/postern.conf systemd/tmpfiles/postern.conf
CLEANFILES += $(UNIT_FILES)

if INSTALL_UNIT
systemdsystemunit_DATA = systemd/postern.service
sysusers_DATA = systemd/sysusers/postern.conf
tmpfiles_DATA = systemd/tmpfiles/postern.conf
endif

FILL_IN = sed -e 's|@bindir[@]|$(bindir)|g' -e 's|@sysconfdir[@]|$(sysconfdir)|g' \
	-e 's|@UNIT_TYPE[@]|$(UNIT_TYPE)|g'

systemd/postern.service: $(srcdir)/systemd/postern.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd && $(FILL_IN) $(srcdir)/systemd/postern.service.in >$@.new && mv $@.new $@

systemd/sysusers/postern.conf: $(srcdir)/systemd/postern.sysusers Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd/sysusers && cp $(srcdir)/systemd/postern.sysusers $@

systemd/tmpfiles/postern.conf: $(srcdir)/systemd/postern.tmpfiles.in Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd/tmpfiles && \
	$(FILL_IN) $(srcdir)/systemd/postern.tmpfiles.in >$@.new && mv $@.new $@

# The example becomes the configuration only where there is none, and goes again only when nobody has
# changed it. That of this version is always with the documentation.
EXAMPLE = $(DESTDIR)$(sysconfdir)/postern/postern.ini

install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(docdir)'
	$(INSTALL_DATA) $(srcdir)/conf/postern.ini '$(DESTDIR)$(docdir)/postern.ini.example'
	$(MKDIR_P) '$(DESTDIR)$(sysconfdir)/postern'
	test -e '$(EXAMPLE)' || test -h '$(EXAMPLE)' || \
	    $(INSTALL_DATA) $(srcdir)/conf/postern.ini '$(EXAMPLE)'

uninstall-local:
	if cmp -s '$(DESTDIR)$(docdir)/postern.ini.example' '$(EXAMPLE)'; then rm -f '$(EXAMPLE)'; fi
	rm -f '$(DESTDIR)$(docdir)/postern.ini.example'
