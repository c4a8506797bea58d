/* What a client does next, and exactly what it must be told.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "torture.h"

enum { MS = 1000, SQL = 1024, BIG = 1000 * 1000 };

/* ---- what is expected ---- */

/* Messages behind an error are skipped up to the Sync: nothing is expected of them. */
static bool skipping;

static struct expect *expect(struct client *c, char type, const char *text)
{
    static struct expect nothing;
    struct script *s = &c->script;
    if (skipping && type != 'Z')
        return &nothing;
    if (s->count == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->expects = realloc(s->expects, s->cap * sizeof(*s->expects));
    }
    struct expect *e = &s->expects[s->count++];
    *e = (struct expect){.type = type, .text = text ? strdup(text) : NULL};
    return e;
}

/* An ERROR: the model learns of it too. */
static void expect_error(struct client *c, const char *sqlstate, bool extended)
{
    if (skipping)
        return;
    expect(c, 'E', sqlstate);
    model_error(&c->model);
    skipping = extended;
}

static void unit_ends(struct client *c)
{
    struct script *s = &c->script;
    char status[2] = {c->model.status, 0};
    skipping = false;
    expect(c, 'Z', status);
    if (s->units == s->units_cap) {
        s->units_cap = s->units_cap ? 2 * s->units_cap : 16;
        s->unit_ends = realloc(s->unit_ends, s->units_cap * sizeof(*s->unit_ends));
    }
    s->unit_ends[s->units++] = s->out.len;
}

static void hold(struct client *c, uint32_t pause_us)
{
    struct script *s = &c->script;
    if (s->hold_count < HOLDS_MAX)
        s->holds[s->hold_count++] = (struct hold){s->out.len, s->count, pause_us};
}

void script_free(struct script *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->expects[i].text);
    free(s->expects);
    free(s->unit_ends);
    bytes_free(&s->out);
    *s = (struct script){.cut_at = SIZE_MAX, .piece = SIZE_MAX};
}

/* ---- messages ---- */

static void put_query(struct client *c, const char *sql)
{
    struct bytes *b = &c->script.out;
    size_t m = message_begin(b, 'Q');
    bytes_z(b, sql);
    message_end(b, m);
    note(c, "Q %s", sql);
}

static void put_parse(struct client *c, const char *name, const char *sql, int parameters)
{
    struct bytes *b = &c->script.out;
    size_t m = message_begin(b, 'P');
    bytes_z(b, name);
    bytes_z(b, sql);
    bytes_u16(b, (uint16_t)parameters);
    for (int i = 0; i < parameters; i++)
        bytes_u32(b, 25);
    message_end(b, m);
    note(c, "P %s %s", name, sql);
}

static void put_bind(struct client *c, const char *portal, const char *name, const char *parameter)
{
    struct bytes *b = &c->script.out;
    size_t m = message_begin(b, 'B');
    bytes_z(b, portal);
    bytes_z(b, name);
    bytes_u16(b, 0);
    bytes_u16(b, parameter ? 1 : 0);
    if (parameter) {
        bytes_u32(b, (uint32_t)strlen(parameter));
        bytes_put(b, parameter, strlen(parameter));
    }
    bytes_u16(b, 0);
    message_end(b, m);
    note(c, "B %s %s %s", portal, name, parameter ? parameter : "");
}

static void put_named(struct client *c, char type, char kind, const char *name)
{
    struct bytes *b = &c->script.out;
    size_t m = message_begin(b, type);
    bytes_put(b, &kind, 1);
    bytes_z(b, name);
    message_end(b, m);
    note(c, "%c %c %s", type, kind, name);
}

static void put_execute(struct client *c, const char *portal, uint32_t limit)
{
    struct bytes *b = &c->script.out;
    size_t m = message_begin(b, 'E');
    bytes_z(b, portal);
    bytes_u32(b, limit);
    message_end(b, m);
    note(c, "E %s %u", portal, limit);
}

static void put_simple(struct client *c, char type)
{
    message_end(&c->script.out, message_begin(&c->script.out, type));
    note(c, "%c", type);
}

static void put_sync(struct client *c)
{
    put_simple(c, 'S');
    model_leave(&c->model);
    unit_ends(c);
}

static void put_copy(struct client *c, const char *at, size_t len)
{
    struct bytes *b = &c->script.out;
    size_t m = message_begin(b, 'd');
    bytes_put(b, at, len);
    message_end(b, m);
}

static void put_copy_fail(struct client *c)
{
    struct bytes *b = &c->script.out;
    size_t m = message_begin(b, 'f');
    bytes_z(b, "the client changed its mind");
    message_end(b, m);
    note(c, "f");
}

/* ---- statements: what can be run in any protocol ---- */

enum { ROWS_MAX = 24 };
enum effect { EFFECT_NONE, EFFECT_SET, EFFECT_LOCAL, EFFECT_RESET };

struct statement {
    char sql[SQL];
    char column[32]; /* "": there are no rows; "*": the name does not matter */
    char tag[32];
    char error[8];
    bool early;      /* the error comes with Parse, not with Execute */
    unsigned rows;
    char row[ROWS_MAX][96];
    uint32_t big; /* row[0] repeated to this size */
    enum effect effect;
    enum variable variable;
    char value[VALUE];
};

static const char *tag_of(struct client *c)
{
    static char tag[32];
    snprintf(tag, sizeof(tag), "c%d-q%u", c->id, ++c->query);
    return tag;
}

static void select_one(struct statement *st, const char *row)
{
    st->rows = 1;
    snprintf(st->row[0], sizeof(st->row[0]), "%s", row);
    strcpy(st->tag, "SELECT 1");
}

static void make_rows(struct client *c, struct statement *st, const char *tag)
{
    st->rows = 1 + draw(c, ROWS_MAX);
    snprintf(st->column, sizeof(st->column), "c%dq%u", c->id, c->query);
    snprintf(st->sql, SQL, "SELECT '%s-' || g AS \"%s\" FROM generate_series(1, %u) g", tag, st->column, st->rows);
    for (unsigned i = 0; i < st->rows; i++)
        snprintf(st->row[i], sizeof(st->row[i]), "%s-%u", tag, i + 1);
    snprintf(st->tag, sizeof(st->tag), "SELECT %u", st->rows);
}

static void make_show(struct client *c, struct statement *st, enum variable v)
{
    const char *shows = model_shows(&c->model, v);
    strcpy(st->column, "*");
    if (v == VAR_CUSTOM || one_in(c, 3)) {
        snprintf(st->sql, SQL, "SELECT coalesce(current_setting('%s', true), '')", variable_names[v]);
        select_one(st, shows);
    } else {
        snprintf(st->sql, SQL, one_in(c, 2) ? "SHOW %s" : "show /* SET x */ \"%s\"", variable_names[v]);
        select_one(st, shows);
        strcpy(st->tag, "SHOW");
    }
}

static void make_set(struct client *c, struct statement *st, enum variable v)
{
    char set[VALUE], *sql = st->sql;
    const char *name = variable_names[v];
    bool local = c->model.status == 'T' && one_in(c, 3);
    c->set_in = c->scripts;
    variable_value(v, c->id, ++c->serial, draw(c, 1000), set, st->value);
    st->variable = v;
    st->effect = local ? EFFECT_LOCAL : EFFECT_SET;
    strcpy(st->tag, "SET");
    if (v == VAR_ISOLATION && !local && one_in(c, 2)) {
        snprintf(sql, SQL, "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL %s", st->value);
    } else if (v != VAR_SEARCH_PATH && v != VAR_DATESTYLE && one_in(c, 4)) {
        snprintf(sql, SQL, "SELECT set_config('%s', %s, %s)", name, set, local ? "true" : "false");
        strcpy(st->column, "*");
        select_one(st, st->value);
    } else {
        static const char *const sets[] = {"SET ", "set\t", "SET/* to */", "  SET -- LISTEN x\n"};
        snprintf(sql, SQL, "%s%s%s%s%s", sets[draw(c, 4)], local ? "LOCAL " : one_in(c, 2) ? "SESSION " : "", name,
                 one_in(c, 2) ? " = " : " TO ", set);
    }
}

static void make_reset(struct client *c, struct statement *st, enum variable v)
{
    st->effect = EFFECT_RESET;
    c->set_in = c->scripts;
    st->variable = v;
    bool is_own = strcmp(c->model.startup[v], c->login->defaults[v]) != 0;
    if (!is_own && one_in(c, 3)) {
        snprintf(st->sql, SQL, "SET %s TO DEFAULT", variable_names[v]);
        strcpy(st->tag, "SET");
    } else {
        snprintf(st->sql, SQL, "RESET %s", variable_names[v]);
        strcpy(st->tag, "RESET");
    }
}

static void make_error(struct client *c, struct statement *st, const char *tag)
{
    if (one_in(c, 2)) {
        strcpy(st->error, "42P01");
        st->early = true;
        snprintf(st->sql, SQL, "SELECT '%s' FROM there_is_no_such_table", tag);
        return;
    }
    strcpy(st->error, "22012");
    snprintf(st->column, sizeof(st->column), "c%dq%u", c->id, c->query);
    snprintf(st->sql, SQL, "SELECT '%s-' || 1 / (2 - g) AS %s FROM generate_series(1, 3) g", tag, st->column);
    st->rows = 1;
    snprintf(st->row[0], sizeof(st->row[0]), "%s-1", tag);
}

/* Texts around a literal that must not be taken for what they look like. */
static const char *const tricks[][2] = {
    {"SELECT /* SET search_path = evil; LISTEN */ '", "'"},
    {"SELECT -- DISCARD ALL\n '", "'"},
    {"SELECT $x$", "$x$::text"},
    {"SELECT $$$$ || '", "' || $a$$a$"},
    {"SELECT '' || /* /* LISTEN */ */ E'", "' WHERE 'LISTEN; SET a = b' <> $$ DEALLOCATE ALL; $$"},
    {"WITH w AS (SELECT '", "'::text) SELECT * FROM w"},
    {"SELECT '", "'::text FROM pg_sleep(0.01)"},
    {"VALUES ('", "')"},
};

/* Any statement that changes nothing but variables; as a part: of several in one Query. */
static void make_statement(struct client *c, struct statement *st)
{
    const char *tag = tag_of(c);
    memset(st, 0, sizeof(*st));
    unsigned kind = draw(c, 100);
    if (kind < 30) {
        const char *const *form = tricks[draw(c, 8)];
        strcpy(st->column, "*");
        snprintf(st->sql, SQL, "%s%s%s", form[0], tag, form[1]);
        select_one(st, tag);
    } else if (kind < 50) {
        make_rows(c, st, tag);
    } else if (kind < 52) {
        snprintf(st->column, sizeof(st->column), "c%dq%u", c->id, c->query);
        st->big = one_in(c, 3) ? BIG : 20000 + draw(c, 60000);
        snprintf(st->sql, SQL, "SELECT left(repeat('%s-', %u), %u) AS %s", tag, st->big / 4, st->big, st->column);
        select_one(st, tag);
        strcat(st->row[0], "-");
    } else if (kind < 66) {
        make_show(c, st, draw(c, VAR_COUNT));
    } else if (kind < 81) {
        make_set(c, st, draw(c, VAR_COUNT));
    } else if (kind < 87) {
        enum variable v = draw(c, VAR_COUNT);
        /* Inside a transaction a pooled RESET shows the server's default for a while. */
        if (c->inside && strcmp(c->model.startup[v], c->login->defaults[v]) != 0 && !options.trust && !c->login->session)
            make_show(c, st, v);
        else
            make_reset(c, st, v);
    } else if (kind < 92) {
        make_error(c, st, tag);
    } else if (kind < 97) {
        snprintf(st->sql, SQL, "DO $$ BEGIN RAISE NOTICE '%s; SET x = LISTEN'; END $$", tag);
        strcpy(st->tag, "DO");
        c->set_in = c->scripts; /* it sets nothing, but the gate cannot know before it has asked */
    } else {
        snprintf(st->sql, SQL, "INSERT INTO torture_log VALUES (%d, '%s')", c->id, tag);
        strcpy(st->tag, "INSERT 0 1");
    }
}

static void apply(struct client *c, const struct statement *st)
{
    if (st->effect == EFFECT_RESET)
        model_reset(&c->model, st->variable);
    else if (st->effect != EFFECT_NONE)
        model_set(&c->model, st->variable, st->value, st->effect == EFFECT_LOCAL);
}

static void expect_rows(struct client *c, const struct statement *st, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        struct expect *e = expect(c, 'D', st->row[i]);
        if (st->big) {
            e->flags = EXPECT_REPEAT;
            e->size = st->big;
        }
    }
}

/* ---- simple queries ---- */

/* What one statement of a Query brings; false: the rest of the Query is not run. */
static bool expect_simple(struct client *c, const struct statement *st)
{
    if (c->model.status == 'E') {
        expect_error(c, "25P02", false);
        return false;
    }
    if (st->column[0])
        expect(c, 'T', st->column[0] == '*' ? NULL : st->column);
    expect_rows(c, st, 0, st->rows);
    if (st->error[0]) {
        expect_error(c, st->error, false);
        return false;
    }
    apply(c, st);
    expect(c, 'C', st->tag);
    return true;
}

static void query_ends(struct client *c)
{
    model_leave(&c->model);
    c->unnamed[0] = '\0';
    unit_ends(c);
}

static void do_query(struct client *c)
{
    struct statement st;
    c->inside = c->model.status != 'I';
    make_statement(c, &st);
    c->inside = true;
    put_query(c, st.sql);
    model_enter(&c->model);
    expect_simple(c, &st);
    query_ends(c);
}

static void do_empty(struct client *c)
{
    put_query(c, one_in(c, 2) ? "" : " ; /* nothing */ ");
    expect(c, 'I', NULL);
    query_ends(c);
}

static void do_syntax_error(struct client *c)
{
    put_query(c, "SELECT 1; SET work_mem = '1GB'; SELEC 2");
    c->set_in = c->scripts; /* nothing was set, but the gate cannot know before it has asked */
    model_enter(&c->model);
    expect_error(c, "42601", false);
    query_ends(c);
}

/* One statement that takes part in a Query of several, given its place among them. */
static void add_part(struct client *c, char *sql, size_t size, const char *text)
{
    size_t len = strlen(sql);
    snprintf(sql + len, size - len, "%s%s\n", text, one_in(c, 3) ? "\n; ;" : "\n;");
}

static void do_multi(struct client *c)
{
    enum { PARTS = 6 };
    char sql[PARTS * (SQL + 16)] = "";
    bool runs = true;
    unsigned parts = 2 + draw(c, PARTS - 2);
    model_enter(&c->model);
    for (unsigned i = 0; i < parts; i++) {
        struct statement st;
        if (runs && c->model.status == 'T' && one_in(c, 5)) {
            bool back = one_in(c, 2);
            add_part(c, sql, sizeof(sql), back ? "ROLLBACK" : "COMMIT");
            expect(c, 'C', back ? "ROLLBACK" : "COMMIT");
            if (back)
                model_rollback(&c->model);
            else
                model_commit(&c->model);
            model_enter(&c->model);
            continue;
        }
        if (runs && c->model.status == 'I' && one_in(c, 8)) {
            add_part(c, sql, sizeof(sql), "BEGIN");
            expect(c, 'C', "BEGIN");
            model_begin(&c->model);
            continue;
        }
        make_statement(c, &st);
        add_part(c, sql, sizeof(sql), st.sql);
        runs = runs && expect_simple(c, &st);
    }
    put_query(c, sql);
    query_ends(c);
}

/* ---- transactions ---- */

/* A command of transactions, by either protocol; the model was told already. */
static void put_command(struct client *c, const char *sql, const char *tag)
{
    if (one_in(c, 3)) {
        put_parse(c, "", sql, 0);
        put_bind(c, "", "", NULL);
        put_execute(c, "", 0);
        put_simple(c, 'S');
        expect(c, '1', NULL);
        expect(c, '2', NULL);
        expect(c, 'C', tag);
        snprintf(c->unnamed, sizeof(c->unnamed), "!");
        unit_ends(c);
    } else {
        put_query(c, sql);
        expect(c, 'C', tag);
        c->unnamed[0] = '\0';
        unit_ends(c);
    }
}

static void do_begin(struct client *c)
{
    static const char *const forms[] = {"BEGIN", "begin work", "START TRANSACTION", "BEGIN ISOLATION LEVEL REPEATABLE READ"};
    unsigned form = draw(c, 4);
    model_begin(&c->model);
    put_command(c, forms[form], form == 2 ? "START TRANSACTION" : "BEGIN");
}

static void do_end(struct client *c)
{
    bool failed = c->model.status == 'E';
    bool chains = one_in(c, 8) && options.server >= 12; /* AND CHAIN is PostgreSQL 12's */
    if (chains && c->model.status == 'T') {
        model_commit(&c->model);
        model_begin(&c->model);
        put_command(c, "COMMIT AND CHAIN", "COMMIT");
    } else if (one_in(c, 2)) {
        model_commit(&c->model);
        put_command(c, one_in(c, 2) ? "COMMIT" : "END", failed ? "ROLLBACK" : "COMMIT");
    } else {
        model_rollback(&c->model);
        put_command(c, one_in(c, 2) ? "ROLLBACK" : "abort", "ROLLBACK");
    }
}

static void do_savepoint(struct client *c)
{
    char sql[64];
    if (c->model.save_count && one_in(c, 2)) {
        int save = (int)draw(c, (uint32_t)c->model.save_count);
        bool back = c->model.status == 'E' || one_in(c, 2);
        snprintf(sql, sizeof(sql), back ? "ROLLBACK TO s%d" : "RELEASE s%d", save);
        if (back)
            model_rollback_to(&c->model, save);
        else
            model_release(&c->model, save);
        put_command(c, sql, back ? "ROLLBACK" : "RELEASE");
    } else if (c->model.status == 'T' && model_save(&c->model)) {
        snprintf(sql, sizeof(sql), "SAVEPOINT s%d", c->model.save_count - 1);
        put_command(c, sql, "SAVEPOINT");
    }
}

/* ---- the extended protocol ---- */

static void expect_parse(struct client *c)
{
    if (c->model.status == 'E')
        expect_error(c, "25P02", true);
    else
        expect(c, '1', NULL);
}

/* Describe of a portal or a statement. */
static void maybe_describe(struct client *c, char kind, const char *name, const char *column, unsigned parameters)
{
    if (!one_in(c, 2))
        return;
    put_named(c, 'D', kind, name);
    if (kind == 'S')
        expect(c, 't', NULL)->size = parameters;
    if (column && column[0])
        expect(c, 'T', column[0] == '*' ? NULL : column);
    else
        expect(c, 'n', NULL);
}

/* Flush, and sometimes nothing more is sent before all that it must bring has come. */
static void maybe_flush(struct client *c)
{
    if (!one_in(c, 5))
        return;
    put_simple(c, 'H');
    if (one_in(c, 2))
        hold(c, draw(c, 5 * MS));
}

static void run_unnamed(struct client *c)
{
    struct statement st;
    make_statement(c, &st);
    put_parse(c, "", st.sql, 0);
    if (!skipping)
        strcpy(c->unnamed, st.early || c->model.status == 'E' ? "" : "!");
    if (st.early && c->model.status != 'E')
        expect_error(c, st.error, true);
    else
        expect_parse(c);
    maybe_describe(c, 'S', "", st.column, 0);
    maybe_flush(c);
    put_bind(c, "", "", NULL);
    expect(c, '2', NULL);
    maybe_describe(c, 'P', "", st.column, 0);
    maybe_flush(c);
    if (st.rows > 3 && !st.error[0] && one_in(c, 2)) { /* by portions */
        unsigned first = 1 + draw(c, st.rows - 2);
        char rest[32];
        put_execute(c, "", first);
        expect_rows(c, &st, 0, first);
        expect(c, 's', NULL);
        maybe_flush(c);
        put_execute(c, "", 0);
        expect_rows(c, &st, first, st.rows);
        snprintf(rest, sizeof(rest), "SELECT %u", st.rows - first);
        expect(c, 'C', rest);
        return;
    }
    put_execute(c, "", 0);
    expect_rows(c, &st, 0, st.rows);
    if (st.error[0]) {
        expect_error(c, st.error, true);
        return;
    }
    if (!skipping)
        apply(c, &st);
    expect(c, 'C', st.tag);
}

/* Runs a statement with one parameter that answers it and what its text adds. */
static void run_bound(struct client *c, const char *name, const char *adds)
{
    char row[192];
    const char *tag = tag_of(c);
    bool missing = adds[0] == '\0';
    bool other = adds[0] == '!'; /* prepared without a parameter */
    if (other && c->model.status == 'E')
        return; /* two reasons to refuse: which of them is said is not promised */
    if (adds[0] == '?')
        adds = ""; /* the answer is the parameter alone */
    char parameter[40];
    snprintf(parameter, sizeof(parameter), "%s", tag);
    if (!skipping && c->model.status != 'E' && !missing && !other)
        maybe_describe(c, 'S', name, "*", 1);
    put_bind(c, "", name, parameter);
    if (missing)
        expect_error(c, "26000", true);
    else if (other)
        expect_error(c, "08P01", true);
    else if (c->model.status == 'E')
        expect_error(c, "25P02", true);
    expect(c, '2', NULL);
    maybe_describe(c, 'P', "", "*", 0);
    put_execute(c, "", one_in(c, 4) ? 5 : 0);
    snprintf(row, sizeof(row), "%s%s", parameter, adds);
    expect(c, 'D', row);
    expect(c, 'C', "SELECT 1");
}

static void run_named(struct client *c)
{
    unsigned slot = draw(c, NAMES);
    char name[16], sql[SQL], adds[96];
    snprintf(name, sizeof(name), "s%u", slot);
    bool known = c->names[slot][0] != '\0';
    if (known && one_in(c, 6)) {
        put_named(c, 'C', 'S', name);
        expect(c, '3', NULL);
        if (!skipping)
            c->names[slot][0] = '\0';
        if (one_in(c, 2))
            return;
        known = false;
    }
    if (known && one_in(c, 12)) {
        put_parse(c, name, "SELECT 'never'", 0);
        expect_error(c, c->model.status == 'E' ? "25P02" : "42P05", true);
        return;
    }
    if (!known && !one_in(c, 8)) {
        /* Some texts are everybody's, some are this client's alone, some change the session. */
        if (one_in(c, 2))
            snprintf(adds, sizeof(adds), "-common%u", draw(c, 30));
        else
            snprintf(adds, sizeof(adds), "-c%d-p%u", c->id, ++c->prepares);
        snprintf(sql, sizeof(sql), "SELECT $1::text || '%s'", adds);
        put_parse(c, name, sql, 1);
        expect_parse(c);
        if (!skipping)
            snprintf(c->names[slot], sizeof(c->names[slot]), "%s", adds);
        if (one_in(c, 4)) {
            maybe_flush(c);
            return;
        }
    }
    run_bound(c, name, c->names[slot]);
}

/* A statement of two parameters' worth of text in a portal of its own, fetched bit by bit. */
static void run_portal(struct client *c)
{
    struct statement st;
    char portal[24], tag[32];
    memset(&st, 0, sizeof(st));
    make_rows(c, &st, tag_of(c));
    snprintf(portal, sizeof(portal), "p%u", draw(c, 3));
    put_parse(c, "", st.sql, 0);
    if (!skipping)
        strcpy(c->unnamed, c->model.status == 'E' ? "" : "!");
    expect_parse(c);
    put_bind(c, portal, "", NULL);
    expect(c, '2', NULL);
    maybe_describe(c, 'P', portal, st.column, 0);
    unsigned at = 0;
    while (at < st.rows && !one_in(c, 6)) {
        unsigned n = 1 + draw(c, 9);
        bool suspends = at + n <= st.rows;
        put_execute(c, portal, n);
        expect_rows(c, &st, at, suspends ? at + n : st.rows);
        snprintf(tag, sizeof(tag), "SELECT %u", st.rows - at);
        if (suspends)
            expect(c, 's', NULL);
        else
            expect(c, 'C', tag);
        at += n;
        maybe_flush(c);
        if (c->model.status == 'T' && !skipping && one_in(c, 4))
            put_sync(c); /* in a transaction the portal lives on */
    }
    put_named(c, 'C', 'P', portal);
    expect(c, '3', NULL);
}

static void do_extended(struct client *c)
{
    unsigned segments = one_in(c, 3) ? 1 + draw(c, 8) : 1;
    for (unsigned i = 0; i < segments; i++) {
        unsigned steps = one_in(c, 20) ? 0 : 1 + draw(c, 4);
        model_enter(&c->model);
        for (unsigned k = 0; k < steps; k++) {
            unsigned kind = draw(c, 10);
            if (kind < 4)
                run_unnamed(c);
            else if (kind < 8)
                run_named(c);
            else if (kind < 9)
                run_portal(c);
            else if (one_in(c, 4))
                run_bound(c, "", c->unnamed);
            else {
                put_named(c, 'C', 'S', "no_such_statement");
                expect(c, '3', NULL);
            }
        }
        put_sync(c);
    }
}

/* ---- COPY ---- */

static void end_segment(struct client *c, bool extended)
{
    if (extended)
        put_sync(c);
    else
        query_ends(c);
}

static void put_copy_command(struct client *c, const char *sql, bool extended)
{
    model_enter(&c->model);
    if (!extended) {
        put_query(c, sql);
        if (c->model.status == 'E')
            expect_error(c, "25P02", false);
        return;
    }
    put_parse(c, "", sql, 0);
    strcpy(c->unnamed, c->model.status == 'E' ? "" : "!");
    expect_parse(c);
    put_bind(c, "", "", NULL);
    expect(c, '2', NULL);
    put_execute(c, "", 0);
}

static void do_copy_out(struct client *c)
{
    char sql[SQL], row[96];
    bool extended = one_in(c, 3), fails = one_in(c, 6);
    const char *tag = tag_of(c);
    unsigned rows = one_in(c, 4) ? 2000 + draw(c, 8000) : draw(c, 30);
    snprintf(sql, sizeof(sql), "COPY (SELECT '%s-' || g%s FROM generate_series(1, %u) g) TO STDOUT", tag,
             fails ? " / (g - 20)" : "", rows);
    put_copy_command(c, sql, extended);
    if (c->model.status != 'E') {
        expect(c, 'H', NULL);
        for (unsigned i = 1; i <= rows; i++) {
            int value = (int)i;
            if (fails && i == 20)
                break;
            if (fails)
                value = (int)i / ((int)i - 20);
            snprintf(row, sizeof(row), "%s-%d\n", tag, value);
            expect(c, 'd', row);
        }
        if (fails && rows >= 20) {
            expect_error(c, "22012", extended);
        } else {
            snprintf(row, sizeof(row), "COPY %u", rows);
            expect(c, 'c', NULL);
            expect(c, 'C', row);
        }
    }
    statistics.copies++;
    end_segment(c, extended);
}

static void do_copy_in(struct client *c)
{
    char row[200];
    bool extended = one_in(c, 3), failed = c->model.status == 'E';
    const char *tag = tag_of(c);
    unsigned rows = one_in(c, 5) ? 2000 + draw(c, 4000) : draw(c, 30);
    unsigned end = draw(c, 8); /* 0: CopyFail, 1: a bad row at the end, 2: one before others, else well */
    unsigned bad = end == 1 ? rows : end == 2 ? draw(c, rows + 1) : UINT32_MAX;
    put_copy_command(c, "COPY torture_log FROM STDIN", extended);
    if (!failed)
        expect(c, 'G', NULL);
    if (one_in(c, 2))
        hold(c, draw(c, 10 * MS));
    for (unsigned i = 0; i <= rows; i++) {
        if (i == bad)
            put_copy(c, "not a number\tx\n", 15);
        if (i == rows)
            break;
        int n = snprintf(row, sizeof(row), "%d\t%s-%u\n", c->id, tag, i);
        put_copy(c, row, (size_t)n);
        if (i == rows / 2 && one_in(c, 6))
            hold(c, draw(c, 20 * MS));
        if (i == rows / 2 && one_in(c, 6))
            put_simple(c, 'H'); /* the server ignores it here */
    }
    note(c, "%u rows of COPY", rows);
    if (end == 0)
        put_copy_fail(c);
    else
        put_simple(c, 'c');
    if (!failed && end <= 2) {
        expect_error(c, end ? "22P02" : "57014", extended);
    } else if (!failed) {
        snprintf(row, sizeof(row), "COPY %u", rows);
        expect(c, 'C', row);
    }
    statistics.copies++;
    end_segment(c, extended);
}

/* ---- what pins a session ---- */

/* A Query that succeeds, or fails only because the transaction has. */
static void plain(struct client *c, const char *sql, const char *tag, const char *row)
{
    model_enter(&c->model);
    put_query(c, sql);
    if (row) {
        expect(c, 'T', NULL);
        expect(c, 'D', row);
    }
    expect(c, 'C', tag);
    query_ends(c);
}

static void do_listen(struct client *c)
{
    char sql[SQL];
    snprintf(sql, sizeof(sql), "LISTEN c%d_channel", c->id);
    plain(c, sql, "LISTEN", NULL);
    for (unsigned i = draw(c, 3); i > 0; i--) {
        snprintf(sql, sizeof(sql), "NOTIFY c%d_channel, '%s'", c->id, tag_of(c));
        plain(c, sql, "NOTIFY", NULL);
    }
    if (!one_in(c, 3))
        plain(c, "UNLISTEN *", "UNLISTEN", NULL);
}

static void do_temporary(struct client *c)
{
    char sql[SQL], tag[32];
    strcpy(tag, tag_of(c));
    snprintf(sql, sizeof(sql), "CREATE TEMP TABLE mine AS SELECT '%s'::text AS v", tag);
    plain(c, sql, "SELECT 1", NULL);
    if (one_in(c, 2))
        hold(c, draw(c, 10 * MS));
    plain(c, "SELECT v FROM mine", "SELECT 1", tag);
    if (one_in(c, 3))
        return;
    if (one_in(c, 2))
        plain(c, "DROP TABLE mine", "DROP TABLE", NULL);
    else
        plain(c, "DISCARD TEMP", "DISCARD TEMP", NULL);
}

static void do_lock(struct client *c)
{
    char sql[SQL];
    uint32_t key = ++c->serial;
    snprintf(sql, sizeof(sql), "SELECT pg_try_advisory_lock(%d, %u)", c->id, key);
    plain(c, sql, "SELECT 1", "t");
    plain(c, "SELECT 'x' /* in between */", "SELECT 1", "x");
    snprintf(sql, sizeof(sql), "SELECT pg_advisory_unlock(%d, %u)", c->id, key);
    if (!one_in(c, 3))
        plain(c, sql, "SELECT 1", "t");
}

static void do_prepare(struct client *c)
{
    char sql[SQL], row[64];
    uint32_t n = ++c->prepares;
    snprintf(sql, sizeof(sql), "PREPARE sql_one(text) AS SELECT $1 || '-c%d-p%u'", c->id, n);
    plain(c, sql, "PREPARE", NULL);
    for (unsigned i = draw(c, 3); i > 0; i--) {
        const char *tag = tag_of(c);
        snprintf(sql, sizeof(sql), "EXECUTE sql_one('%s')", tag);
        snprintf(row, sizeof(row), "%s-c%d-p%u", tag, c->id, n);
        plain(c, sql, "SELECT 1", row);
    }
    if (!one_in(c, 3))
        plain(c, "DEALLOCATE sql_one", "DEALLOCATE", NULL);
}

static void do_cursor(struct client *c)
{
    char sql[SQL], row[64];
    const char *tag = tag_of(c);
    snprintf(sql, sizeof(sql), "DECLARE held CURSOR WITH HOLD FOR SELECT '%s-' || g FROM generate_series(1, 5) g", tag);
    plain(c, sql, "DECLARE CURSOR", NULL);
    snprintf(row, sizeof(row), "%s-1", tag);
    plain(c, "FETCH held", "FETCH 1", row);
    snprintf(row, sizeof(row), "%s-2", tag);
    plain(c, "FETCH NEXT FROM held", "FETCH 1", row);
    if (!one_in(c, 3))
        plain(c, "CLOSE held", "CLOSE CURSOR", NULL);
}

static void forget_statements(struct client *c)
{
    for (unsigned i = 0; i < NAMES; i++)
        c->names[i][0] = '\0';
}

static void discard_all(struct client *c)
{
    model_reset_all(&c->model);
    c->set_in = c->scripts;
    forget_statements(c);
    put_query(c, "DISCARD ALL");
    expect(c, 'C', "DISCARD ALL");
    query_ends(c);
}

static void do_pinning(struct client *c)
{
    static void (*const kinds[])(struct client *) = {do_listen, do_temporary, do_lock, do_prepare, do_cursor};
    unsigned first = draw(c, 5);
    kinds[first](c);
    if (one_in(c, 3))
        kinds[(first + 1 + draw(c, 4)) % 5](c);
    c->script.pins = c->has_pinned = true;
    if (one_in(c, 2))
        do_query(c);
    if (c->model.status == 'I' && one_in(c, 4))
        c->script.quits = true; /* and leaves it all behind */
    else if (c->model.status != 'I') {
        model_rollback(&c->model);
        put_command(c, "ROLLBACK", "ROLLBACK");
    }
    if (!c->script.quits)
        discard_all(c);
}

/* ---- the rest ---- */

static void do_deallocate(struct client *c)
{
    unsigned slot = draw(c, NAMES);
    char sql[SQL];
    if (c->model.status == 'E')
        return;
    model_enter(&c->model);
    if (one_in(c, 3)) {
        put_query(c, one_in(c, 2) ? "DEALLOCATE ALL" : "deallocate prepare all");
        expect(c, 'C', "DEALLOCATE ALL");
        forget_statements(c);
    } else {
        snprintf(sql, sizeof(sql), one_in(c, 2) ? "DEALLOCATE s%u" : "DEALLOCATE PREPARE \"s%u\"", slot);
        put_query(c, sql);
        if (c->names[slot][0])
            expect(c, 'C', "DEALLOCATE");
        else
            expect_error(c, "26000", false);
        c->names[slot][0] = '\0';
    }
    query_ends(c);
}

static void do_long_text(struct client *c)
{
    const char *tag = tag_of(c);
    uint32_t size = 10000 + draw(c, 300000);
    size_t unit = strlen(tag) + 1;
    char *sql = malloc(size + 64), *text = malloc(size + 1);
    for (uint32_t i = 0; i < size; i++)
        text[i] = i % unit == unit - 1 ? '-' : tag[i % unit];
    text[size] = '\0';
    snprintf(sql, size + 64, "SELECT '%s' AS long", text);
    char piece[64];
    snprintf(piece, sizeof(piece), "%s-", tag);
    model_enter(&c->model);
    bool extended = one_in(c, 2), failed = c->model.status == 'E';
    if (extended) {
        put_parse(c, "", "SELECT $1::text", 1);
        strcpy(c->unnamed, failed ? "" : "!"); /* its answer is bare: not to be used again */
        expect_parse(c);
        put_bind(c, "", "", text);
        expect(c, '2', NULL);
        put_execute(c, "", 0);
    } else {
        put_query(c, sql);
        if (failed)
            expect_error(c, "25P02", false);
        else
            expect(c, 'T', "long");
    }
    if (!failed) {
        struct expect *e = expect(c, 'D', piece);
        e->flags = EXPECT_REPEAT;
        e->size = size;
        expect(c, 'C', "SELECT 1");
    }
    if (extended)
        snprintf(c->unnamed, sizeof(c->unnamed), "%s", failed ? "" : "?");
    free(sql);
    free(text);
    end_segment(c, extended);
}

/* textcat(tag, "-called") by FunctionCall. */
static void do_function(struct client *c)
{
    static const char rest[] = "-called";
    struct bytes *b = &c->script.out;
    char value[64];
    const char *tag = tag_of(c);
    snprintf(value, sizeof(value), "%s%s", tag, rest);
    model_enter(&c->model);
    size_t m = message_begin(b, 'F');
    bytes_u32(b, 1258);
    bytes_u16(b, 0);
    bytes_u16(b, 2);
    bytes_u32(b, (uint32_t)strlen(tag));
    bytes_put(b, tag, strlen(tag));
    bytes_u32(b, sizeof(rest) - 1);
    bytes_put(b, rest, sizeof(rest) - 1);
    bytes_u16(b, 0);
    message_end(b, m);
    note(c, "F %s", value);
    c->set_in = c->scripts; /* it sets nothing, but the gate cannot know before it has asked */
    if (c->model.status == 'E')
        expect_error(c, "25P02", false);
    else
        expect(c, 'V', value);
    model_leave(&c->model);
    unit_ends(c);
}

static void do_sleep(struct client *c)
{
    char sql[SQL];
    const char *tag = tag_of(c);
    if (c->model.status == 'E')
        return;
    model_enter(&c->model);
    snprintf(sql, sizeof(sql), "SELECT '%s' FROM pg_sleep(0.%u)", tag, 1 + draw(c, 3));
    put_query(c, sql);
    expect(c, 'T', NULL);
    expect(c, 'D', tag);
    expect(c, 'C', "SELECT 1");
    query_ends(c);
    if (one_in(c, 4))
        c->script.cut_after = 1 + draw(c, 100 * MS);
    else
        c->script.cancel_after = 1 + draw(c, 100 * MS);
}

static void do_compare(struct client *c, bool learns)
{
    struct bytes sql = {0};
    model_enter(&c->model);
    for (int v = 0; v < VAR_COUNT; v++) {
        bool custom = v == VAR_CUSTOM;
        bytes_put(&sql, custom ? "SELECT " : "SHOW ", custom ? 7 : 5);
        const char *custom_text = "coalesce(current_setting('torture.own', true), '')";
        const char *text = custom ? custom_text : variable_names[v];
        bytes_put(&sql, text, strlen(text));
        bytes_put(&sql, ";", 1);
        expect(c, 'T', NULL);
        struct expect *e = expect(c, 'D', model_shows(&c->model, v));
        e->flags = learns ? EXPECT_LEARN : 0;
        e->variable = (uint8_t)v;
        expect(c, 'C', custom ? "SELECT 1" : "SHOW");
    }
    bytes_put(&sql, "", 1);
    put_query(c, sql.at);
    query_ends(c);
    bytes_free(&sql);
}

void script_learn(struct client *c)
{
    c->script.kind = "learn";
    do_compare(c, true);
}

/* After a unit that failed in a way that was not foretold. */
static void recover(struct client *c)
{
    c->script.kind = "recover";
    c->must_learn = false; /* unless this goes wrong too */
    c->model.status = c->status;
    c->model.implicit = false;
    if (c->status != 'I') {
        c->model.status = 'I';
        put_query(c, "ROLLBACK");
        expect(c, 'C', "ROLLBACK");
        query_ends(c);
    }
    if (one_in(c, 3)) {
        discard_all(c);
        do_compare(c, false);
        return;
    }
    memset(c->model.now.is_local, 0, sizeof(c->model.now.is_local));
    do_compare(c, true);
    model_enter(&c->model);
    for (unsigned i = 0; i < NAMES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "s%u", i);
        put_named(c, 'C', 'S', name);
        expect(c, '3', NULL);
    }
    put_sync(c);
    forget_statements(c);
    discard_all(c); /* the learnt values are compared as they come; then a known state again */
    do_compare(c, false);
}

static void decorate(struct client *c)
{
    struct script *s = &c->script;
    if (one_in(c, 10))
        s->piece = 1 + draw(c, 40);
    else if (one_in(c, 10))
        s->piece = 1 + draw(c, 3000);
    if (s->out.len / s->piece > 2000)
        s->piece = 1 + s->out.len / 2000;
    if (one_in(c, 40)) {
        s->cut_at = draw(c, (uint32_t)s->out.len);
        s->resets = one_in(c, 2);
    } else if (one_in(c, 40)) {
        s->cut_after = 1 + draw(c, 20 * MS);
        s->resets = one_in(c, 2);
    } else if (one_in(c, 25)) {
        s->cancel_after = 1 + draw(c, 10 * MS);
    }
    if (one_in(c, 30))
        s->mute_us = 1 + draw(c, 100 * MS);
}

void script_make(struct client *c)
{
    script_free(&c->script);
    skipping = false;
    c->first_query = c->query + 1;
    c->scripts++;
    struct script *s = &c->script;
    if (!c->login->known) {
        script_learn(c);
        return;
    }
    if (c->must_learn) {
        recover(c);
        return;
    }
    c->model.status = c->status;
    if (c->is_new && one_in(c, 2)) {
        s->kind = "new";
        do_compare(c, false);
        return;
    }
    unsigned kind = draw(c, 100);
    bool idle = c->model.status == 'I';
    if (ending && idle) {
        s->kind = "end";
        s->quits = true;
        do_query(c);
    } else if (!idle && (ending || kind < 30)) {
        s->kind = "end of transaction";
        do_end(c);
    } else if (!idle && kind < 45) {
        s->kind = "savepoint";
        do_savepoint(c);
    } else if (idle && kind < 15) {
        s->kind = "begin";
        do_begin(c);
    } else if (idle && kind < 20) {
        s->kind = "pinning";
        do_pinning(c);
    } else if (idle && kind < 22) {
        s->kind = "discard";
        discard_all(c);
    } else if (idle && kind < 25) {
        s->kind = "compare";
        do_compare(c, false);
    } else if (idle && kind < 26) {
        s->kind = "leave";
        do_query(c);
        s->quits = true;
    } else if (kind < 50) {
        s->kind = "query";
        for (unsigned i = one_in(c, 4) ? 1 + draw(c, 5) : 1; i > 0; i--)
            do_query(c);
    } else if (kind < 58) {
        s->kind = "several statements";
        do_multi(c);
    } else if (kind < 80) {
        s->kind = "extended";
        do_extended(c);
        if (one_in(c, 6))
            do_query(c); /* behind a pipeline */
    } else if (kind < 84) {
        s->kind = "copy out";
        do_copy_out(c);
    } else if (kind < 88) {
        s->kind = "copy in";
        do_copy_in(c);
    } else if (kind < 90) {
        s->kind = "long text";
        do_long_text(c);
    } else if (kind < 93) {
        s->kind = "deallocate";
        do_deallocate(c);
    } else if (kind < 94) {
        s->kind = "sleep";
        do_sleep(c);
    } else if (kind < 96) {
        s->kind = "syntax error";
        do_syntax_error(c);
    } else if (kind < 97) {
        s->kind = one_in(c, 2) ? "empty" : "function";
        if (s->kind[0] == 'e')
            do_empty(c);
        else
            for (unsigned i = 1 + draw(c, 3); i > 0; i--)
                do_function(c);
    } else {
        s->kind = "mixture";
        for (unsigned i = 2 + draw(c, 5); i > 0; i--) {
            if (c->model.status == 'I' && one_in(c, 2))
                do_begin(c);
            else if (c->model.status != 'I' && one_in(c, 3))
                do_end(c);
            else if (one_in(c, 2))
                do_extended(c);
            else
                do_query(c);
        }
    }
    if (s->units == 0)
        do_query(c);
    decorate(c);
}

void script_login(struct client *c)
{
    struct model *m = &c->model;
    char set[VALUE], shown[VALUE];
    memset(m, 0, sizeof(*m));
    c->set_in = 0;
    m->status = 'I';
    memcpy(m->startup, c->login->defaults, sizeof(m->startup));
    forget_statements(c);
    c->unnamed[0] = '\0';
    struct bytes *b = &c->out;
    size_t mark = b->len;
    bytes_u32(b, 0);
    bytes_u32(b, one_in(c, 4) && !options.trust ? 0x30002 : 0x30000);
    bytes_z(b, "user");
    bytes_z(b, c->login->user);
    bytes_z(b, "database");
    bytes_z(b, c->login->database);
    for (int v = 0; v < VAR_COUNT && c->login->known; v++) {
        bool options_row = v == VAR_STATEMENT_TIMEOUT || v == VAR_CUSTOM;
        if (v != VAR_APPLICATION_NAME && (!one_in(c, 6) || v == VAR_ISOLATION))
            continue;
        if (v == VAR_DATESTYLE)
            continue;
        variable_value((enum variable)v, c->id, ++c->serial, draw(c, 1000), set, shown);
        if (v == VAR_CUSTOM && m->startup[VAR_STATEMENT_TIMEOUT][0] != '0')
            continue; /* only one of them may come by options */
        if (options_row) {
            char text[2 * VALUE];
            snprintf(text, sizeof(text), "-c %s=%s", variable_names[v], shown);
            bytes_z(b, "options");
            bytes_z(b, text);
        } else {
            bytes_z(b, variable_names[v]);
            bytes_z(b, shown);
        }
        strcpy(m->startup[v], shown);
    }
    bytes_put(b, "", 1);
    uint32_t len = (uint32_t)(b->len - mark);
    for (int i = 0; i < 4; i++)
        b->at[mark + (size_t)i] = (char)(len >> (24 - 8 * i));
    model_reset_all(m);
    note(c, "a new connection");
}
