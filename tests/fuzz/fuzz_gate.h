/* What the fuzz targets of whole gates share: one generation for all inputs.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_FUZZ_GATE_H
#define POSTERN_TESTS_FUZZ_GATE_H

#include "conf/inside.h"
#include "fuzz_kit.h"
#include "session/greet.h"
#include "session/relay.h"
#include "session/session.h"

static struct generation *generation;
static struct sockaddr_un address; /* of all nodes */
static struct limiter_shared *limits;
static struct audit *audit;
static struct session_shared shared;
static struct counters counters;
static struct shared_pools *all_pools;
static struct throttle *throttle;

static void no_cancel(struct home *h, uint64_t id, const struct cancel_key *key)
{
    session_cancel_done(h, id, true);
}

static void no_command(struct home *h, struct session *s, struct text sql)
{
    session_console_ready(s);
}

/* before, after: sections of the configuration, around the listener and the cluster, to whose section
 * `cluster` is added. */
static void gate_load(const char *before, const char *cluster, const char *after)
{
    char credentials[] = "/tmp/postern-fuzz-XXXXXX";
    struct conf_faults faults;
    log_start(); /* before it, lines go to stderr */
    CHECK(log_configure(LOG_ERROR, LOG_TEXT, "/dev/null"));
    int fd = mkostemp(credentials, O_CLOEXEC);
    static const char passwords[] = "\"rw\" \"x\"\n\"slow\" \"x\"\n";
    CHECK(fd >= 0 && write(fd, passwords, sizeof(passwords) - 1) == sizeof(passwords) - 1);
    close(fd);
    conf_faults_init(&faults);
    char *text = mem_format("%s[listener main]\ntls = off\naddress = /tmp\nport = 5432\n"
                            "[cluster main]\nhosts = a\ntls = disable\ncredentials = %s\n%s"
                            "[tenant acme]\ndatabases = *\nroles = rw\ndatabase_role = ${role}\n%s",
                            before, credentials, cluster, after);
    struct conf *conf = conf_load_text("fuzz.ini", text_of(text), &faults);
    generation = faults.count ? NULL : generation_load(conf, NULL, &faults);
    if (!generation)
        fprintf(stderr, TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
    CHECK(generation);
    conf_unref(conf);
    conf_faults_free(&faults);
    mem_free(text);
    unlink(credentials);
    limits = limiter_shared_new();
    audit = audit_new("fuzz");
    loop = loop_new();
}

#endif
