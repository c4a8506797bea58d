/* The nodes of fuzz_node: a model of PostgreSQL that answers what it is asked, also by the gate itself, and what the
 * input makes of its answers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_NODE_MODEL_H
#define POSTERN_TESTS_NODE_MODEL_H

#include "fuzz_kit.h"
#include "pg/scram.h"

enum { NODES = 12 };

/* ---- a model of a server ---- */

enum phase { PHASE_NEW, PHASE_PROOF, PHASE_IN, PHASE_CANCEL };

struct node_end {
    struct peer at;
    enum phase phase;
    bool skipping, copying, of_query;
    char status;
    struct scram_server scram;
};

static struct node_end ends[NODES];
static int listener = -1;
/* What all of them say: how they want to be logged in to, and which settings the role has. */
static unsigned greets, settings;

static const char *const words[] = {"timezone", "role", "search_path", "session_authorization", "client_encoding", "a.b", "work_mem",
                                    "default_transaction_deferrable", "", "session", "default", "t", "f", "on", "UTC", "none", "rw",
                                    "listen", "temporary", "prepare", "hold_cursor", "advisory_lock", "s1", "p", "0", "1", "x",
                                    "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN SET a.b = 1; CALL q(); END $$",
                                    "application_name", "server_version", "11.2-YB-2.1", "standard_conforming_strings", "off", "FATAL", "ERROR",
                                    "57P01", "57P03", "08P01", "26000", "0A000", "42P05", "53300", "ROLLBACK", "DEALLOCATE ALL", "DISCARD ALL",
                                    "RESET", "SET", "INSERT 0 1"};

static void end_node(struct node_end *v)
{
    peer_end(&v->at);
    v->phase = PHASE_NEW;
    v->skipping = v->copying = v->of_query = false;
    v->status = 'I';
    memset(&v->scram, 0, sizeof(v->scram));
}

static void say(struct node_end *v, char type, const void *at, size_t len)
{
    struct wire w = wire_begin(&v->at.out, type);
    wire_put(&w, at, len);
    (void)!wire_end(&w);
}

#define SAY(v, type, literal) say(v, type, literal, sizeof(literal) - 1)

static void say_error(struct node_end *v, const char *severity, const char *sqlstate)
{
    (void)!wire_error(&v->at.out, &(struct wire_fault){severity, REASON_OK, sqlstate, "as told", NULL, NULL});
    if (v->status == 'T')
        v->status = 'E';
    v->copying = false;
}

static void say_ready(struct node_end *v)
{
    (void)!wire_ready(&v->at.out, v->status);
}

static void say_row(struct node_end *v, const struct text *columns, unsigned count)
{
    struct wire w = wire_begin(&v->at.out, 'D');
    wire_put_u16(&w, (uint16_t)count);
    for (unsigned i = 0; i < count; i++) {
        wire_put_u32(&w, columns[i].at ? (uint32_t)columns[i].len : UINT32_MAX);
        wire_put(&w, columns[i].at, columns[i].len);
    }
    (void)!wire_end(&w);
}

/* A row for each name in VALUES ('a'),('b'); those in other letters count as one called "odd". */
static void say_values(struct node_end *v, struct text sql, const struct text *rest, unsigned count)
{
    const char *at = memmem(sql.at, sql.len, "VALUES ", 7), *end = sql.at + sql.len;
    while (at && (at = memchr(at, '(', (size_t)(end - at))) && ++at < end) {
        const char *quote = *at == '\'' ? memchr(at + 1, '\'', (size_t)(end - at - 1)) : NULL;
        if (*at != '\'' && memcmp(at, "pg_catalog.convert_from", end - at < 23 ? (size_t)(end - at) : 23) != 0)
            continue;
        struct text columns[3] = {quote ? (struct text){at + 1, (size_t)(quote - at - 1)} : TEXT("odd")};
        for (unsigned i = 0; i < count; i++)
            columns[1 + i] = rest[i];
        say_row(v, columns, 1 + count);
    }
}

static bool has(struct text sql, const char *what)
{
    return memmem(sql.at, sql.len, what, strlen(what)) != NULL;
}

/* The gate's own questions: true when it was one. */
static bool answer_question(struct node_end *v, struct text sql)
{
    static const struct text none = {NULL, 0};
    if (has(sql, "pg_db_role_setting")) {
        char set[32], value[16];
        snprintf(value, sizeof(value), "%u", settings);
        snprintf(set, sizeof(set), "a.b=%u", settings);
        if (settings)
            say_row(v, (const struct text[]){TEXT("0"), TEXT("1"), text_of(set), TEXT("a.b"), text_of(value)}, 5);
    } else if (has(sql, "WHERE context ")) {
        say_row(v, (const struct text[]){TEXT("a.b"), TEXT("1")}, 2);
        say_row(v, (const struct text[]){TEXT("timezone"), TEXT("UTC")}, 2);
    } else if (has(sql, "FULL JOIN")) {
        say_values(v, sql, (const struct text[]){TEXT("x"), settings & 1 ? TEXT("session") : none}, 2);
        say_row(v, (const struct text[]){TEXT("work_mem"), TEXT("5MB"), TEXT("session")}, 3);
    } else if (has(sql, "current_setting(n, true)")) {
        say_values(v, sql, (const struct text[]){TEXT("x")}, 1);
    } else if (has(sql, "NULL, source")) {
        say_values(v, sql, (const struct text[]){none, settings & 1 ? TEXT("session") : TEXT("default")}, 2);
    } else if (has(sql, ", EXISTS (SELECT")) {
        const char *name = sql.at + 8, *end = memchr(name, '\'', sql.len - 8);
        say_row(v, (const struct text[]){{name, (size_t)(end - name)}, settings & 2 ? TEXT("t") : TEXT("f")}, 2);
    } else if (has(sql, "pg_get_functiondef")) {
        say_row(v, (const struct text[]){TEXT("p"), text_of(words[27])}, 2);
    } else if (has(sql, "WHERE NOT from_sql")) {
        say_row(v, (const struct text[]){TEXT("s1")}, 1);
    } else if (has(sql, " WHERE pg_catalog.set_config(")) {
        if (settings & 4) {
            say_error(v, "ERROR", "22023");
            return true;
        }
        struct text number = {sql.at + 7, strcspn(sql.at + 7, " ")};
        say_row(v, &number, 1);
    } else if (has(sql, "set_config(") && settings & 8) {
        say_error(v, "ERROR", "42704");
        return true;
    } else if (!has(sql, "AND context ")) {
        return false;
    }
    SAY(v, 'C', "SELECT 1\0");
    return true;
}

static void run_text(struct node_end *v, struct text sql)
{
    if (v->status == 'E' && !text_starts(sql, "ROLLBACK") && !text_starts(sql, "COMMIT")) {
        say_error(v, "ERROR", "25P02");
        return;
    }
    if (text_starts(sql, "BEGIN"))
        v->status = 'T';
    else if (text_starts(sql, "COMMIT") || (text_starts(sql, "ROLLBACK") && sql.len <= 8))
        v->status = 'I';
    if (has(sql, "FAIL") || text_starts(sql, "ROLLBACK TO")) {
        say_error(v, "ERROR", "22012");
    } else if (text_starts(sql, "COPY t FROM")) {
        SAY(v, 'G', "\0\0\0");
        v->copying = true;
    } else if (answer_question(v, sql)) {
        ;
    } else if (sql.len == 0) {
        SAY(v, 'I', "");
    } else {
        if (text_starts(sql, "SELECT")) {
            SAY(v, 'T', "\0\1x\0\0\0\0\0\0\0\0\0\0\x19\377\377\377\377\377\377\0\0");
            SAY(v, 'D', "\0\1\0\0\0\1t");
        }
        if (text_starts(sql, "SELECT big")) {
            static char big[200 * 1024] = "\0\1\0\3\x1f\xfa";
            say(v, 'D', big, sizeof(big));
            say(v, 'D', big, sizeof(big));
        }
        if (text_starts(sql, "SET TimeZone"))
            SAY(v, 'S', "TimeZone\0UTC\0");
        if (text_starts(sql, "RESET") || text_starts(sql, "DISCARD ALL"))
            SAY(v, 'S', "TimeZone\0Mars\0");
        char tag[32];
        size_t n = strcspn(sql.at, ";\n");
        snprintf(tag, sizeof(tag), "%.*s", (int)(n < sql.len ? n : sql.len), sql.at);
        say(v, 'C', tag, strlen(tag) + 1);
    }
}

static void welcome(struct node_end *v)
{
    v->phase = PHASE_IN;
    SAY(v, 'R', "\0\0\0\0");
    if (greets & 4)
        SAY(v, 'S', "server_version\0" "11.2-YB-2024.2\0");
    else
        SAY(v, 'S', "server_version\0" "15.2\0");
    if (greets & 8)
        SAY(v, 'S', "TimeZone\0Mars\0");
    else
        SAY(v, 'S', "TimeZone\0UTC\0");
    if (greets & 16) { /* behind it nothing is read for a while */
        int small = 4096;
        (void)setsockopt(v->at.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    }
    SAY(v, 'S', "application_name\0\0");
    SAY(v, 'K', "\0\0\0\7\1\2\3\4");
    say_ready(v);
}

static void start(struct node_end *v)
{
    switch (greets & 3) {
    case 1:
        SAY(v, 'R', "\0\0\0\5salt");
        break;
    case 2:
        CHECK(scram_verifier_make(TEXT("x"), (const uint8_t *)"salt", 4, 1, &v->scram.verifier));
        SAY(v, 'R', "\0\0\0\12SCRAM-SHA-256\0\0");
        break;
    default:
        welcome(v);
        return;
    }
    v->phase = PHASE_PROOF;
}

/* What the client of a login said: message of type 'p'. */
static void prove(struct node_end *v, struct text body)
{
    char out[SCRAM_MESSAGE_MAX + 4] = {0};
    if (v->scram.verifier.iterations == 0) {
        welcome(v);
        return;
    }
    bool first = !v->scram.server_first[0];
    if (first && body.len > 18)
        body = (struct text){body.at + 18, body.len - 18};
    enum scram_result r = first ? scram_server_first(&v->scram, body, out + 4, SCRAM_MESSAGE_MAX)
                                : scram_server_final(&v->scram, body, out + 4, SCRAM_MESSAGE_MAX);
    out[3] = first ? 11 : 12;
    if (r != SCRAM_GO_ON && r != SCRAM_DONE) {
        say_error(v, "FATAL", "28P01");
        return;
    }
    say(v, 'R', out, 4 + strlen(out + 4));
    if (!first)
        welcome(v);
}

static void end_copy(struct node_end *v, char type)
{
    if (!v->copying)
        return;
    v->copying = false;
    if (type == 'f')
        say_error(v, "ERROR", "57014");
    else
        SAY(v, 'C', "COPY 1\0");
    if (v->of_query)
        say_ready(v);
    else
        v->skipping = type == 'f';
}

static void model(struct node_end *v, char type, struct text body)
{
    if ((v->copying && !memchr("cfX", type, 3)) || (v->skipping && !memchr("SX", type, 2)))
        return;
    switch (type) {
    case 'Q':
        v->of_query = true;
        run_text(v, (struct text){body.at, strnlen(body.at, body.len)});
        if (!v->copying)
            say_ready(v);
        break;
    case 'P':
        SAY(v, '1', "");
        break;
    case 'B':
        v->skipping = v->status == 'E';
        if (v->skipping)
            say_error(v, "ERROR", "25P02");
        else
            SAY(v, '2', "");
        break;
    case 'D':
        if (body.len && body.at[0] == 'S')
            SAY(v, 't', "\0\1\0\0\0\x19");
        SAY(v, 'T', "\0\1x\0\0\0\0\0\0\0\0\0\0\x19\377\377\377\377\377\377\0\0");
        break;
    case 'E':
        v->of_query = false;
        SAY(v, 'D', "\0\1\0\0\0\1t");
        SAY(v, 'C', "SELECT 1\0");
        break;
    case 'C':
        SAY(v, '3', "");
        break;
    case 'S':
        v->skipping = false;
        say_ready(v);
        break;
    case 'F':
        SAY(v, 'V', "\377\377\377\377");
        say_ready(v);
        break;
    case 'c':
    case 'f':
        end_copy(v, type);
        break;
    case 'X':
        end_node(v);
        break;
    default:
        break;
    }
}

static void nodes_accept(void)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct node_end *v = NULL;
        for (size_t i = 0; i < NODES && !v; i++)
            v = ends[i].at.fd < 0 ? &ends[i] : NULL;
        if (!v) {
            close(fd);
            continue;
        }
        end_node(v);
        v->at.fd = fd;
    }
}

/* One message of the gate's, if there is a whole one: the answer goes to out. */
static bool node_answers(struct node_end *v)
{
    size_t head = v->phase == PHASE_NEW ? 0 : 1;
    if (v->at.fd < 0 || v->phase == PHASE_CANCEL || buf_size(&v->at.in) < head + 4)
        return false;
    const char *at = buf_front(&v->at.in);
    size_t size = head + wire_u32(at + head);
    CHECK(size >= head + 4 && size < 16 << 20); /* the gate never sends such a length */
    if (buf_size(&v->at.in) < size)
        return false;
    char *copy = mem_dup_n(at, size);
    buf_take(&v->at.in, size);
    if (v->phase == PHASE_NEW && wire_u32(copy + 4) == WIRE_CODE_CANCEL)
        v->phase = PHASE_CANCEL;
    else if (v->phase == PHASE_NEW)
        start(v);
    else if (v->phase == PHASE_PROOF && copy[0] == 'p')
        prove(v, (struct text){copy + WIRE_HEADER, size - WIRE_HEADER});
    else
        model(v, copy[0], (struct text){copy + WIRE_HEADER, size - WIRE_HEADER});
    mem_free(copy);
    return true;
}

/* ---- lies ---- */

/* A message that is well formed and may be quite wrong here. */
static void put_message(struct buf *to, struct input *in)
{
    static const char types[] = "ZDSECTtnRKNA123IGHWdcVs?";
    char type = types[next(in) % (sizeof(types) - 1)];
    struct wire w = wire_begin(to, type);
    unsigned n;
    switch (type) {
    case 'Z':
        wire_put_u8(&w, (uint8_t)"ITEX"[next(in) & 3]);
        break;
    case 'D':
        n = next(in) % 19;
        wire_put_u16(&w, (uint16_t)n);
        for (; n > 0; n--) {
            struct buf t;
            buf_init(&t, 1 << 20);
            put_text(&t, in, words, COUNT_OF(words));
            wire_put_u32(&w, buf_size(&t) % 7 == 6 ? UINT32_MAX : (uint32_t)buf_size(&t));
            if (buf_size(&t) % 7 != 6)
                wire_put(&w, buf_front(&t), buf_size(&t));
            buf_free(&t);
        }
        break;
    case 'S':
        put_text(to, in, words, COUNT_OF(words));
        wire_put_u8(&w, 0);
        put_text(to, in, words, COUNT_OF(words));
        wire_put_u8(&w, 0);
        break;
    case 'E':
    case 'N':
        for (n = next(in) % 6; n > 0; n--) {
            wire_put_u8(&w, (uint8_t)"SVCMDHPn"[next(in) & 7]);
            put_text(to, in, words, COUNT_OF(words));
            wire_put_u8(&w, 0);
        }
        wire_put_u8(&w, 0);
        break;
    case 'R':
        wire_put_u32(&w, next(in) & 15);
        put_text(to, in, words, COUNT_OF(words));
        break;
    default:
        put_text(to, in, words, COUNT_OF(words));
        if (next(in) & 1)
            wire_put_u8(&w, 0);
    }
    (void)!wire_end(&w);
}

/* What is in out from `before` on is an answer: something else is said. */
static void lie(struct node_end *v, size_t before, struct input *in)
{
    struct buf *out = &v->at.out;
    if (!buf_room(out, 1))
        return;
    size_t len = buf_size(out) - before, at = len ? next(in) * 256 + next(in) : 0;
    at = before + (len ? at % len : 0);
    char *bytes = out->at + out->off;
    struct buf rest;
    buf_init(&rest, 16 << 20);
    switch (next(in) % 11) {
    case 0: /* one byte is another */
        if (len)
            bytes[at] = (char)next(in);
        break;
    case 1:
        out->len = out->off + at; /* the rest of it never comes */
        break;
    case 2:
        (void)!(buf_put(&rest, bytes + before, len) && buf_put(out, rest.at, rest.len)); /* twice */
        break;
    case 3: { /* something within */
        struct text t = next_bytes(in, next(in) & 31);
        (void)!(buf_put(&rest, bytes + at, len - (at - before)));
        out->len = out->off + at;
        (void)!(buf_put(out, t.at, t.len) && buf_put(out, rest.at, rest.len));
        break;
    }
    case 4: /* without its first message */
        if (len >= WIRE_HEADER) {
            size_t first = 1 + (size_t)wire_u32(bytes + before + 1);
            if (first <= len && buf_put(&rest, bytes + before + first, len - first)) {
                out->len = out->off + before;
                (void)!buf_put(out, rest.at, rest.len);
            }
        }
        break;
    case 5: /* some before it */
        (void)!buf_put(&rest, bytes + before, len);
        out->len = out->off + before;
        for (unsigned n = 1 + (next(in) & 3); n > 0; n--)
            put_message(out, in);
        (void)!buf_put(out, rest.at, rest.len);
        break;
    case 6: /* some behind it */
        for (unsigned n = 1 + (next(in) & 3); n > 0; n--)
            put_message(out, in);
        break;
    case 7: { /* the same one many times before it */
        (void)!buf_put(&rest, bytes + before, len);
        out->len = out->off + before;
        size_t from = buf_size(out);
        put_message(out, in);
        struct buf one;
        buf_init(&one, 1 << 20);
        if (buf_put(&one, buf_front(out) + from, buf_size(out) - from))
            for (unsigned n = next(in) * 4; n > 0; n--)
                (void)!buf_put(out, one.at, one.len);
        buf_free(&one);
        (void)!buf_put(out, rest.at, rest.len);
        break;
    }
    case 8: /* only this */
        out->len = out->off + before;
        put_message(out, in);
        break;
    case 9: /* and then ready, in some state */
        out->len = out->off + before;
        put_message(out, in);
        v->status = "ITEI"[next(in) & 3];
        say_ready(v);
        break;
    default:
        out->len = out->off + before; /* silence */
    }
    buf_free(&rest);
}

#endif
