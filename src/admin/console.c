/* The console's few commands: read, named and answered. What a report holds is in report.c.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "admin/console.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "pg/wire.h"

/* ---- reading ---- */

enum token {
    TOKEN_END,
    TOKEN_WORD,
    TOKEN_STRING, /* its text is without the quotes; a doubled quote stays doubled */
    TOKEN_SEMICOLON,
    TOKEN_OTHER,
    TOKEN_BROKEN /* a comment or string without its end */
};

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void advance(struct text *t, size_t n)
{
    t->at += n;
    t->len -= n;
}

/* *sql begins with slash and star; comments nest, as in the server. */
static bool skip_comment(struct text *sql)
{
    unsigned depth = 0;
    while (sql->len >= 2) {
        if (memcmp(sql->at, "/*", 2) == 0)
            depth++, advance(sql, 2);
        else if (memcmp(sql->at, "*/", 2) == 0)
            depth--, advance(sql, 2);
        else
            advance(sql, 1);
        if (depth == 0)
            return true;
    }
    return false;
}

static bool skip_blanks(struct text *sql)
{
    while (sql->len) {
        if (is_blank(sql->at[0])) {
            advance(sql, 1);
        } else if (sql->len >= 2 && memcmp(sql->at, "--", 2) == 0) {
            const char *end = memchr(sql->at, '\n', sql->len);
            advance(sql, end ? (size_t)(end - sql->at) : sql->len);
        } else if (sql->len >= 2 && memcmp(sql->at, "/*", 2) == 0) {
            if (!skip_comment(sql))
                return false;
        } else {
            return true;
        }
    }
    return true;
}

static enum token take_string(struct text *sql, struct text *token)
{
    char quote = sql->at[0];
    for (size_t n = 1; n < sql->len; n++) {
        if (sql->at[n] != quote)
            continue;
        if (n + 1 < sql->len && sql->at[n + 1] == quote) {
            n++;
            continue;
        }
        *token = (struct text){sql->at + 1, n - 1};
        advance(sql, n + 1);
        return TOKEN_STRING;
    }
    return TOKEN_BROKEN;
}

static enum token take(struct text *sql, struct text *token)
{
    *token = (struct text){"", 0};
    if (!skip_blanks(sql))
        return TOKEN_BROKEN;
    if (sql->len == 0)
        return TOKEN_END;
    char c = sql->at[0];
    if (c == '\'' || c == '"')
        return take_string(sql, token);
    size_t n = 0;
    while (n < sql->len && is_word(sql->at[n]))
        n++;
    *token = (struct text){sql->at, n ? n : 1};
    advance(sql, token->len);
    return n ? TOKEN_WORD : c == ';' ? TOKEN_SEMICOLON : TOKEN_OTHER;
}

static bool ends(struct text sql)
{
    struct text token;
    enum token kind = take(&sql, &token);
    if (kind == TOKEN_SEMICOLON)
        kind = take(&sql, &token);
    return kind == TOKEN_END;
}

/* What drivers send by themselves: it is done, for it changes nothing here. The tag is the server's. */
static const struct {
    const char *word, *tag;
    bool needs_more;
} courtesies[] = {
    {"SET", "SET", true},           {"BEGIN", "BEGIN", false},       {"START", "START TRANSACTION", true},
    {"COMMIT", "COMMIT", false},    {"END", "COMMIT", false},        {"ROLLBACK", "ROLLBACK", false},
    {"ABORT", "ROLLBACK", false},
};

/* Such a word and what follows it, as long as it is one statement and says something where it must. */
static bool is_one_statement(struct text sql, bool needs_more)
{
    struct text token;
    for (unsigned n = needs_more ? 0 : 1;; n++) {
        struct text before = sql;
        switch (take(&sql, &token)) {
        case TOKEN_END:
        case TOKEN_SEMICOLON:
            return n > 0 && ends(before);
        case TOKEN_BROKEN:
            return false;
        default:
            break;
        }
    }
}

static const struct {
    const char *word, *name;
} commands[] = {
    [COMMAND_NONE] = {"", "empty"},
    [COMMAND_SYNTAX] = {"", "unknown"},
    [COMMAND_NO_ID] = {"", "unknown"},
    [COMMAND_HELP] = {"HELP", "SHOW HELP"},
    [COMMAND_VERSION] = {"VERSION", "SHOW VERSION"},
    [COMMAND_POOLS] = {"POOLS", "SHOW POOLS"},
    [COMMAND_CLIENTS] = {"CLIENTS", "SHOW CLIENTS"},
    [COMMAND_SERVERS] = {"SERVERS", "SHOW SERVERS"},
    [COMMAND_NODES] = {"NODES", "SHOW NODES"},
    [COMMAND_TENANTS] = {"TENANTS", "SHOW TENANTS"},
    [COMMAND_LIMITS] = {"LIMITS", "SHOW LIMITS"},
    [COMMAND_STATS] = {"STATS", "SHOW STATS"},
    [COMMAND_CONFIG] = {"CONFIG", "SHOW CONFIG"},
    [COMMAND_RELOAD] = {"", "RELOAD"},
    [COMMAND_KILL] = {"", "KILL"},
    [COMMAND_NOOP] = {"", "SET"},
};

const char *console_name(enum command c)
{
    CHECK(c < COUNT_OF(commands));
    return commands[c].name;
}

static enum command parse_show(struct text sql)
{
    struct text word;
    if (take(&sql, &word) != TOKEN_WORD || !ends(sql))
        return COMMAND_SYNTAX;
    for (enum command c = COMMAND_HELP; c <= COMMAND_CONFIG; c++)
        if (text_is_nocase(word, commands[c].word))
            return c;
    return COMMAND_SYNTAX;
}

static enum command parse_kill(struct text sql, struct text *argument)
{
    struct text word;
    uint64_t id;
    enum token kind = take(&sql, &word);
    if ((kind != TOKEN_WORD && kind != TOKEN_STRING) || !ends(sql))
        return COMMAND_SYNTAX;
    *argument = word;
    return console_id(word, &id) ? COMMAND_KILL : COMMAND_NO_ID;
}

enum command console_parse(struct text sql, struct text *argument)
{
    struct text word;
    *argument = (struct text){"", 0};
    /* A string of the protocol ends where its terminator is. */
    while (sql.len && sql.at[sql.len - 1] == '\0')
        sql.len--;
    switch (take(&sql, &word)) {
    case TOKEN_END:
        return COMMAND_NONE;
    case TOKEN_SEMICOLON:
        return take(&sql, &word) == TOKEN_END ? COMMAND_NONE : COMMAND_SYNTAX;
    case TOKEN_WORD:
        break;
    default:
        return COMMAND_SYNTAX;
    }
    if (text_is_nocase(word, "SHOW"))
        return parse_show(sql);
    if (text_is_nocase(word, "KILL"))
        return parse_kill(sql, argument);
    if (text_is_nocase(word, "RELOAD"))
        return ends(sql) ? COMMAND_RELOAD : COMMAND_SYNTAX;
    for (size_t i = 0; i < COUNT_OF(courtesies); i++)
        if (text_is_nocase(word, courtesies[i].word) && is_one_statement(sql, courtesies[i].needs_more)) {
            *argument = text_of(courtesies[i].tag);
            return COMMAND_NOOP;
        }
    return COMMAND_SYNTAX;
}

bool console_id(struct text argument, uint64_t *id)
{
    *id = 0;
    if (argument.len == 0 || argument.len > 16)
        return false;
    for (size_t i = 0; i < argument.len; i++) {
        char c = argument.at[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            return false;
        *id = *id << 4 | digit;
    }
    return true;
}

/* ---- answering ---- */

static void answer(struct session *s, struct buf *m)
{
    /* A stream may hold back write_buffer bytes, which a long report passes; it is bounded by
     * itself, and only an administrator can ask for one. */
    size_t need = stream_held(&s->client) + buf_size(m);
    if (s->client.out.max < need)
        s->client.out.max = need;
    session_put(s, buf_front(m), buf_size(m));
    buf_free(m);
}

void console_answer_table(struct session *s, const struct table *t)
{
    struct buf m;
    buf_init(&m, table_wire_size(t));
    table_put_wire(t, &m);
    answer(s, &m);
}

void console_answer_done(struct session *s, const char *tag)
{
    struct buf m;
    buf_init(&m, 128);
    if (tag[0] == '\0') {
        CHECK(wire_simple(&m, 'I')); /* EmptyQueryResponse */
    } else {
        struct wire w = wire_begin(&m, 'C');
        wire_put_z(&w, tag);
        CHECK(wire_end(&w));
    }
    answer(s, &m);
}

void console_answer_warnings(struct session *s, const char *lines)
{
    struct text rest = text_of(lines), line;
    while (text_split(&rest, '\n', &line)) {
        struct buf m;
        char *message = mem_dup_n(line.at, line.len);
        buf_init(&m, 8192);
        const struct wire_fault f = {.severity = "WARNING", .why = REASON_OK, .sqlstate = "01000", .message = message};
        if (line.len && wire_error(&m, &f)) {
            m.at[0] = 'N'; /* the same fields as an ErrorResponse */
            answer(s, &m);
        }
        buf_free(&m);
        mem_free(message);
    }
}

void console_answer_error(struct session *s, enum reason why, const char *message)
{
    const struct wire_fault f = {.severity = "ERROR", .why = why, .message = message};
    const struct wire_fault brief = {.severity = "ERROR", .why = why};
    struct buf m;
    buf_init(&m, 8192);
    if (!wire_error(&m, &f))
        CHECK(wire_error(&m, &brief));
    answer(s, &m);
}

void console_answer_no_id(struct session *s, struct text found)
{
    char message[192];
    snprintf(message, sizeof(message), "\"%.*s%s\" is not the id of a client: that is up to 16 hexadecimal digits, such as 12af",
             (int)(found.len < 40 ? found.len : 40), found.at, found.len > 40 ? "..." : "");
    console_answer_error(s, REASON_NO_CLIENT, message);
}

void console_answer_syntax(struct session *s, struct text sql)
{
    struct text word, next;
    struct buf m;
    enum { FOUND = 40 };
    buf_init(&m, 1024);
    bool is_word = take(&sql, &word) == TOKEN_WORD, has_next = take(&sql, &next) == TOKEN_WORD;
    bool is_show = is_word && text_is_nocase(word, "SHOW");
    if (is_word && text_is_nocase(word, "KILL")) {
        buf_printf(&m, "KILL takes the id of one client; allowed: KILL <id of SHOW CLIENTS>");
    } else if (is_word && text_is_nocase(word, "RELOAD")) {
        buf_printf(&m, "RELOAD takes nothing behind it");
    } else {
        if (is_show && has_next)
            buf_printf(&m, "SHOW takes one word, found \"%.*s\"; allowed: ", (int)(next.len < FOUND ? next.len : FOUND), next.at);
        else
            buf_printf(&m, "%s; allowed: ", is_show ? "SHOW takes one word" : "no command of this console");
        buf_printf(&m, "%sSHOW with one of ", is_show ? "" : "RELOAD, KILL <id of SHOW CLIENTS>, ");
        for (enum command c = COMMAND_HELP; c <= COMMAND_CONFIG; c++)
            buf_printf(&m, "%s%s", c == COMMAND_HELP ? "" : ", ", commands[c].word);
    }
    console_answer_error(s, REASON_SYNTAX, buf_put(&m, "", 1) ? m.at : NULL);
    buf_free(&m);
}
