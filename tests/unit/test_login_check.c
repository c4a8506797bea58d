/* Clusters and roles that could never log in: what --check says of them before anybody comes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "conf/inside.h"
#include "tap.h"
#include "upstream/login_check.h"

static char list[] = "/tmp/postern-check-XXXXXX";
static struct conf_faults faults;

/* Lines of [cluster main], which has the credentials, and what stands behind its database. */
static const struct {
    const char *cluster, *rest, *fault, *advice;
} rows[] = {
    {"", "", "", ""},
    {"tls = disable", "", "", ""},
    {"channel_binding = require", "", "", ""},
    {"tls = require\nchannel_binding = require", "", "", ""},
    {"tls = disable\nchannel_binding = require", "",
     "[cluster main] channel_binding: found \"require\" with tls = disable, and only TLS has a certificate to bind a proof to: "
     "every login would be refused; allowed: tls = verify-full beside it, or prefer here", ""},
    {"tls = disable\nchannel_binding = require\nrequire_auth = none", "", "",
     "[cluster main] channel_binding: found \"require\" with tls = disable: a node that asks for a password is refused"},
    {"channel_binding = require\nrequire_auth = md5", "", "[cluster main] channel_binding: found \"require\" with a require_auth without scram-sha-256", ""},
    {"channel_binding = require\nrequire_auth = md5\ntls_cert = c\ntls_key = k", "", "", ""},
    {"tls = disable\nrequire_auth = password", "",
     "[cluster main] require_auth: found \"password\" alone: a password goes in clear text only through TLS that is verified, and "
     "every login would be refused", ""},
    {"tls = require\nrequire_auth = password", "", "[cluster main] require_auth: found \"password\" alone", ""},
    {"tls = verify-ca\nrequire_auth = password", "", "", ""},
    {"tls = disable\nrequire_auth = password, scram-sha-256", "", "", "[cluster main] require_auth: found \"password\", which has no effect"},
    {"tls = disable\nrequire_auth = none", "", "", ""},
    {"monitor_user = app", "", "", ""},
    {"monitor_user = watch", "", "", "[cluster main] monitor_user: found \"watch\": the cluster's credentials have no password of this role"},
    {"monitor_user = watch\ntls_cert = c\ntls_key = k", "", "", ""},
    {"tls = require\nmonitor_user = watch\ntls_cert = c\ntls_key = k", "", "", "[cluster main] monitor_user: found \"watch\""},
    {"monitor_user = watch\nrequire_auth = scram-sha-256, none", "", "", ""},
    {"", "[tenant t]\nroles = app\n", "", ""},
    {"", "[tenant t]\nroles = app, ro\n", "", "[tenant t] roles: found \"ro\", in the database ro: the credentials of [cluster main] have no password"},
    {"monitor_user = app", "[tenant t]\nroles = app\n", "", "[tenant t] roles: found \"app\", in the database app: that is monitor_user of [cluster main]"},
    {"tls_cert = c\ntls_key = k", "[tenant t]\nroles = app, ro\n", "", ""},
    {"", "[tenant t]\nroles = *\n", "", ""},
    {"", "[tenant *]\ndatabases = *\ndatabase_role = ${tenant}_${role}\nroles = rw\n", "", ""},
    {"", "[tenant a]\ndatabase_role = ${tenant}${role}\nroles = pp\n", "", ""},
    {"", "[tenant t]\ndatabase_role = nobody\n", "", "[tenant t] roles: found \"*\", in the database nobody: the credentials of [cluster main]"},
    {"", "[tenant t]\nroles = ro\n[cluster open]\nhosts = b\nrequire_auth = none\n[database t]\ncluster = open\n[tenant u]\nroles = app\n", "", ""},
    {"", "[tenant t]\nroles = ro\ndatabases = *\n[cluster open]\nhosts = b\nrequire_auth = none\n[database t]\ncluster = open\n", "", ""},
    {"", "[tenant *]\n[cluster bare]\nhosts = b\n[database t]\ncluster = bare\n", "", "[cluster bare] credentials: missing, and there is no tls_cert"},
};

static void look(size_t i)
{
    char *text = mem_format("[listener main]\ntls = off\n[database *]\ncluster = main\n[cluster main]\nhosts = a\ncredentials = %s\n%s\n%s", list,
                            rows[i].cluster, rows[i].rest);
    conf_faults_free(&faults);
    struct conf *conf = conf_load_text("x.ini", text_of(text), &faults);
    ok(faults.count == 0 && faults.advice_count == 0, "%zu: nothing else is to be said", i);
    struct credentials *c = credentials_load(conf, &faults);
    login_check(conf, c, &faults);
    const struct text said[] = {buf_text(&faults.text), buf_text(&faults.advice)};
    const char *const wanted[] = {rows[i].fault, rows[i].advice};
    const unsigned counts[] = {faults.count, faults.advice_count};
    for (size_t k = 0; k < COUNT_OF(said); k++) {
        size_t len = strlen(wanted[k]);
        ok(counts[k] == (len > 0) && (!len || memmem(said[k].at, said[k].len, wanted[k], len)), "%zu: %s: " TEXT_FMT, i, k ? "advice" : "fault",
           TEXT_ARG(said[k]));
    }
    credentials_unref(c);
    conf_unref(conf);
    mem_free(text);
}

int main(void)
{
    static const char line[] = "\"app\" \"sesame\"\n";
    conf_faults_init(&faults);
    int fd = mkstemp(list);
    if (fd < 0 || write(fd, line, sizeof(line) - 1) != (ssize_t)sizeof(line) - 1)
        return 99;
    close(fd);
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        look(i);
    unlink(list);
    conf_faults_free(&faults);
    return tap_done();
}
