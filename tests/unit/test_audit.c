/* The audit trail: one strict JSON object a line, whatever the texts hold.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "gate/audit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sink.h"
#include "tests/unit/tap.h"

enum { LINES = 16 };

static json_t *lines[LINES];
static size_t line_count;

static void read_lines(const char *path)
{
    char line[65536];
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    for (line_count = 0; line_count < LINES && fgets(line, sizeof(line), f); line_count++)
        lines[line_count] = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    fclose(f);
}

static const char *text_at(size_t i, const char *name)
{
    return json_string_value(json_object_get(lines[i], name));
}

/* A reload that is refused, and one that is taken. */
static void test_two_steps(const char *path)
{
    struct audit *a = audit_new(NULL);
    struct sink_file *file = audit_prepare(path);
    ok(file && access(path, F_OK) == 0, "a file is prepared");
    sink_abandon(&file);
    audit_write(a, &(struct audit_event){.event = AUDIT_ADMIN, .command = "nobody hears"});
    ok(access(path, F_OK) != 0, "and given up");
    file = audit_prepare(path);
    audit_commit(a, &file);
    audit_write(a, &(struct audit_event){.event = AUDIT_ADMIN, .command = "heard"});
    ok(audit_reopen(a), "opened by its name");
    audit_free(a);
    read_lines(path);
    ok(line_count == 1 && !file, "only what comes after the commit is written");
    json_decref(lines[0]);
    unlink(path);
}

int main(void)
{
    char path[] = "/tmp/postern-audit-XXXXXX", moved[sizeof(path) + 4], label[4000];
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    close(fd);
    snprintf(moved, sizeof(moved), "%s.1", path);
    struct audit *a = audit_new("node-1");
    audit_write(a, &(struct audit_event){.event = AUDIT_START});
    ok(audit_open(a, path), "opened");
    audit_write(a, &(struct audit_event){.event = AUDIT_LOGIN,
                                         .session = "client 1f",
                                         .address = "10.0.0.1:4000",
                                         .tenant = "acme",
                                         .subject = "u",
                                         .user = "rw",
                                         .role = "acme_rw",
                                         .database = "app",
                                         .issuer = "one",
                                         .jti = "j",
                                         .tls = "TLSv1.3",
                                         .method = "token",
                                         .duration_us = 1234});
    audit_write(a, &(struct audit_event){
                       .event = AUDIT_LOGOUT, .queries = 7, .bytes_in = 8, .bytes_out = INT64_MAX});
    audit_write(a, &(struct audit_event){.event = AUDIT_LOGIN_REFUSED,
                                         .user = "a\"b\\c\nd\x01\x7f \xff\xc3\xa9\"},{\"x\":\""});
    memset(label, 'x', sizeof(label) - 1);
    label[sizeof(label) - 1] = '\0';
    memcpy(label + 511, "\xc3\xa9", 2);
    audit_write(a, &(struct audit_event){.event = AUDIT_LIMIT, .user = label});
    memset(label, 1, sizeof(label) - 1);
    audit_write(a, &(struct audit_event){.event = AUDIT_ADMIN,
                                         .session = label,
                                         .address = label,
                                         .tenant = label,
                                         .subject = label,
                                         .user = label,
                                         .role = label,
                                         .database = label,
                                         .issuer = label,
                                         .jti = label,
                                         .tls = label,
                                         .method = label,
                                         .reason = label,
                                         .detail = label,
                                         .outcome = label,
                                         .target = label,
                                         .target_subject = label,
                                         .target_tenant = label,
                                         .command = label});
    ok(!audit_open(a, "/nonexistent/audit"), "a file that cannot be opened: the old one stays");
    audit_write(a, &(struct audit_event){0});
    audit_free(a);
    audit_free(NULL);
    a = audit_new("node-1");
    ok(audit_open(a, path) && audit_open(a, ""), "on and off again");
    audit_write(a, &(struct audit_event){.event = AUDIT_START});
    audit_free(a);

    read_lines(path);
    bool all = true;
    for (size_t i = 0; i < line_count; i++)
        all = all && json_is_object(lines[i]);
    ok(all, "every line is a JSON object without duplicates");
    is_int(line_count, 6, "one line an event, none before opening and none when off");
    is_text(text_at(0, "event"), "login", "event");
    is_text(text_at(0, "instance"), "node-1", "instance");
    is_text(text_at(0, "tenant"), "acme", "tenant");
    is_text(text_at(0, "jti"), "j", "jti");
    ok(text_at(0, "time") && strchr(text_at(0, "time"), 'T'), "time");
    is_int(json_integer_value(json_object_get(lines[0], "duration_us")), 1234, "duration");
    ok(!json_object_get(lines[0], "reason") && !json_object_get(lines[0], "queries"), "left out");
    is_int(json_integer_value(json_object_get(lines[1], "queries")), 7, "queries");
    is_text(text_at(2, "user"), "a\"b\\c\nd\x01\x7f \xef\xbf\xbd\xc3\xa9\"},{\"x\":\"",
            "hostile text comes back as it was, but for what is not UTF-8");
    is_int(strlen(text_at(3, "user")), 511, "cut before a character");
    ok(json_is_true(json_object_get(lines[3], "cut")), "and said so");
    ok(!json_object_get(lines[2], "cut"), "and only then");
    is_text(text_at(4, "event"), "admin", "the longest line there can be");
    for (size_t i = 0; i < line_count; i++)
        json_decref(lines[i]);

    test_two_steps(moved);

    /* Rotation: renamed away, opened again. */
    a = audit_new(NULL);
    ok(audit_open(a, path) && rename(path, moved) == 0 && audit_open(a, path), "reopened");
    audit_write(a, &(struct audit_event){.event = AUDIT_STOP});
    audit_free(a);
    read_lines(path);
    ok(line_count == 1 && !json_object_get(lines[0], "instance"), "the new file has the line");
    json_decref(lines[0]);
    unlink(path);
    unlink(moved);
    return tap_done();
}
