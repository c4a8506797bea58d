/* Every message of the server against what the script foretold.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "torture.h"

static void remember(struct client *c, char type, const char *body, size_t len)
{
    char head[16];
    int n = snprintf(head, sizeof(head), "\n%c %zu ", type, len);
    size_t most = len < 100 ? len : 100;
    for (size_t i = 0; i < (size_t)n + most; i++) {
        char ch = i < (size_t)n ? head[i] : body[i - (size_t)n];
        c->received[c->received_count++ % RING] = ch == '\n' || isprint((unsigned char)ch) ? ch : '.';
    }
}

/* The first number of a client other than ours: c17-, c17_, c17q. -1: there is none. */
static int stranger(const struct client *c, const char *at, size_t len)
{
    for (size_t i = 0; i + 2 < len; i++) {
        if (at[i] != 'c' || (i && isalnum((unsigned char)at[i - 1])) || !isdigit((unsigned char)at[i + 1]))
            continue;
        int id = 0;
        size_t k = i + 1;
        while (k < len && k < i + 6 && isdigit((unsigned char)at[k]))
            id = 10 * id + at[k++] - '0';
        if (k < len && (at[k] == '-' || at[k] == '_' || at[k] == 'q') && id != c->id)
            return id;
    }
    return -1;
}

static bool field(const char *body, size_t len, char which, char *out, size_t size)
{
    size_t i = 0;
    while (i < len && body[i]) {
        size_t n = strnlen(body + i + 1, len - i - 1);
        if (body[i] == which) {
            snprintf(out, size, "%.*s", (int)n, body + i + 1);
            return true;
        }
        i += n + 2;
    }
    return false;
}

static bool is_loss(const char *sqlstate)
{
    static const char *const codes[] = {"57P01", "57P02", "57P03", "08006", "08007", "08001", "08003", "08004", "53300"};
    for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
        if (strcmp(sqlstate, codes[i]) == 0)
            return true;
    return false;
}

/* Would this failure of the present unit be nobody's fault? */
static bool is_allowed(const struct client *c, const char *sqlstate)
{
    if (strcmp(sqlstate, "57014") == 0)
        return c->cancel.fd >= 0 || c->units_done < c->cancelable_to;
    return options.chaos && is_loss(sqlstate);
}

/* The rest of this unit will not come, and what the script has said of later ones is void. */
static void derail(struct client *c)
{
    struct script *s = &c->script;
    if (!c->derailed)
        statistics.derailed++;
    c->derailed = c->unit_failed = c->must_learn = true;
    while (s->done < s->count && s->expects[s->done].type != 'Z')
        s->done++;
}

/* The unit under way was to begin a block: one that is lost by itself ends the session. */
static bool begins(const struct client *c)
{
    const struct script *s = &c->script;
    size_t i = s->done;
    while (i < s->count && s->expects[i].type != 'Z')
        i++;
    return c->status == 'I' && i < s->count && s->expects[i].text[0] != 'I';
}

static bool on_error(struct client *c, const char *body, size_t len)
{
    char severity[16] = "", sqlstate[8] = "", text[200] = "";
    struct script *s = &c->script;
    field(body, len, 'V', severity, sizeof(severity));
    field(body, len, 'C', sqlstate, sizeof(sqlstate));
    field(body, len, 'M', text, sizeof(text));
    statistics.errors++;
    if (strcmp(severity, "FATAL") == 0) {
        /* Lost with what it was about to tell of the variables: going on would be a lie. */
        bool asked = c->set_in > 0 && c->scripts - c->set_in <= 8; /* in the last transaction, perhaps, which may have been rolled back */
        bool may = options.chaos && is_loss(sqlstate) && (c->login->session || c->has_pinned || s->pins || asked || begins(c));
        /* A BEGIN that waits is canceled, and more was sent behind it: that would run by itself. */
        may = may || (strcmp(sqlstate, "57014") == 0 && is_allowed(c, sqlstate) && begins(c));
        if (!may) {
            fail(c, "FATAL %s %s", sqlstate, text);
            return false;
        }
        c->fatal = true;
        statistics.fatals++;
        return true;
    }
    if (s->done == s->count) {
        fail(c, "an ERROR %s %s although nothing was asked", sqlstate, text);
        return false;
    }
    const struct expect *e = &s->expects[s->done];
    if (c->derailed) {
        if (c->unit_failed) {
            fail(c, "a second ERROR in one unit: %s %s", sqlstate, text);
            return false;
        }
        c->unit_failed = true;
        while (s->expects[s->done].type != 'Z')
            s->done++;
        return true;
    }
    if (e->type == 'E' && strcmp(e->text, sqlstate) == 0) {
        s->done++;
        return true;
    }
    if (!is_allowed(c, sqlstate)) {
        fail(c, "ERROR %s %s where %c %s was due", sqlstate, text, e->type, e->text ? e->text : "");
        return false;
    }
    if (strcmp(sqlstate, "57014") == 0)
        statistics.canceled++;
    else
        statistics.lost++;
    c->unit_lost = strcmp(sqlstate, "57P01") == 0 || strcmp(sqlstate, "08006") == 0;
    derail(c);
    return true;
}

static bool compare_reported(struct client *c)
{
    for (int v = 0; v < VAR_REPORTED; v++) {
        const char *shows = model_shows(&c->model, (enum variable)v);
        if (c->has_reported[v] && strcmp(c->reported[v], shows) != 0) {
            fail(c, "the last ParameterStatus of %s was %s and it should be %s", variable_names[v], c->reported[v], shows);
            return false;
        }
    }
    return true;
}

static bool on_ready(struct client *c, const char *body, size_t len)
{
    struct script *s = &c->script;
    if (len != 1) {
        fail(c, "a ReadyForQuery of %zu bytes", len);
        return false;
    }
    if (s->done == s->count) {
        fail(c, "a surplus ReadyForQuery");
        return false;
    }
    if (c->derailed)
        while (s->expects[s->done].type != 'Z')
            s->done++;
    const struct expect *e = &s->expects[s->done];
    /* A block that was lost is a failed one until the client ends it. */
    if (c->unit_lost && c->status == 'T' && e->type == 'Z' && e->text[0] != 'I' && body[0] == 'I') {
        fail(c, "a transaction block was lost, and ReadyForQuery says that there is none");
        return false;
    }
    if (e->type != 'Z' || (!c->derailed && e->text[0] != body[0])) {
        fail(c, "ReadyForQuery %c where %c %s was due", body[0], e->type, e->text ? e->text : "");
        return false;
    }
    c->status = body[0];
    s->done++;
    c->unit_at++;
    c->units_done++;
    c->unit_failed = c->unit_lost = false;
    statistics.units++;
    bool over = s->done == s->count;
    /* A transaction that has failed has its variables rolled back already, as far as it did not set savepoints. */
    return !over || c->derailed || c->status == 'E' || !c->login->known || compare_reported(c);
}

static bool on_parameter(struct client *c, const char *body, size_t len)
{
    const char *value = body + strnlen(body, len) + 1;
    for (int v = 0; v < VAR_REPORTED; v++)
        if (strcmp(body, variable_names[v]) == 0) {
            snprintf(c->reported[v], VALUE, "%s", value);
            c->has_reported[v] = true;
        }
    return true;
}

/* The query number in c17-q203..., or 0. */
static uint32_t query_in(const char *at, size_t len)
{
    char copy[32];
    unsigned id, query;
    snprintf(copy, sizeof(copy), "%.*s", (int)(len < 31 ? len : 31), at);
    return sscanf(copy, "c%u-q%u", &id, &query) == 2 ? query : 0;
}

/* Behind a derailment only the order and the owner of what comes can be checked. */
static bool check_loosely(struct client *c, char type, const char *body, size_t len)
{
    const char *at = type == 'D' ? body + 6 : body;
    uint32_t query = (type == 'D' && len > 6) || type == 'd' ? query_in(at, len - (size_t)(at - body)) : 0;
    if (!strchr("12345tnTDCIsGHdcV", type)) {
        fail(c, "an unknown message %c", type);
        return false;
    }
    if (query && (query < c->loose_query || query < c->first_query || query > c->query)) {
        fail(c, "the answer of query %u, behind that of %u", query, c->loose_query);
        return false;
    }
    if (query)
        c->loose_query = query;
    return true;
}

static bool check_data(struct client *c, struct expect *e, const char *body, size_t len)
{
    if (len < 6 || body[0] || body[1] != 1 || get_u32(body + 2) != len - 6) {
        fail(c, "a row of another shape");
        return false;
    }
    const char *value = body + 6;
    size_t n = len - 6, own = strlen(e->text);
    statistics.rows++;
    if (e->flags & EXPECT_LEARN) {
        enum variable v = e->variable;
        char shown[VALUE];
        snprintf(shown, sizeof(shown), "%.*s", (int)n, value);
        if (!c->login->known) {
            strcpy(c->login->defaults[v], shown);
        } else if (strcmp(shown, c->model.startup[v]) != 0 && !variable_is_own(v, c->id, shown)) {
            fail(c, "%s is %s, which this client never set", variable_names[v], shown);
            return false;
        }
        if (c->login->known && v < VAR_REPORTED && c->has_reported[v] && strcmp(c->reported[v], shown) != 0) {
            fail(c, "%s is %s, but was last reported as %s", variable_names[v], shown, c->reported[v]);
            return false;
        }
        return true;
    }
    bool same = n == own && memcmp(value, e->text, n) == 0;
    if (e->flags & EXPECT_REPEAT) {
        same = n == e->size;
        for (size_t i = 0; same && i < n; i++)
            same = value[i] == e->text[i % own];
    }
    if (!same)
        fail(c, "the row %.*s where %s was due", (int)(n < 200 ? n : 200), value, e->text);
    return same;
}

static bool check_strictly(struct client *c, char type, const char *body, size_t len)
{
    struct script *s = &c->script;
    struct expect *e = &s->expects[s->done];
    if (e->type != type) {
        fail(c, "message %c where %c %s was due", type, e->type, e->text ? e->text : "");
        return false;
    }
    bool good = true;
    if (type == 'D') {
        good = check_data(c, e, body, len);
        s->done += good;
        return good;
    }
    if (type == 'T')
        good = !e->text || (len > 2 && strcmp(body + 2, e->text) == 0);
    else if (type == 'C')
        good = strcmp(body, e->text) == 0;
    else if (type == 'd')
        good = len == strlen(e->text) && memcmp(body, e->text, len) == 0;
    else if (type == 'V')
        good = len == strlen(e->text) + 4 && memcmp(body + 4, e->text, len - 4) == 0;
    else if (type == 't')
        good = len >= 2 && (uint32_t)(unsigned char)body[1] == e->size;
    if (!good)
        fail(c, "message %c %.*s is not %s", type, (int)(len < 100 ? len : 100), type == 'T' ? body + 2 : body, e->text ? e->text : "");
    else
        s->done++;
    return good;
}

bool check_message(struct client *c, char type, const char *body, size_t len)
{
    struct script *s = &c->script;
    remember(c, type, body, len);
    c->progress = now_us();
    statistics.bytes += len + 5;
    int other = stranger(c, body, len < 4096 ? len : 4096);
    if (other >= 0) {
        fail(c, "what came belongs to client %d: %c", other, type);
        return false;
    }
    if (len > 8 && memmem(body, len < 4096 ? len : 4096, "postern_", 8)) {
        fail(c, "a name of the gate's own reached the client");
        return false;
    }
    if (c->fatal) {
        fail(c, "message %c behind a FATAL error", type);
        return false;
    }
    if (type == 'S')
        return on_parameter(c, body, len);
    if (type == 'N')
        return true;
    if (type == 'A') {
        statistics.notifications++;
        return true;
    }
    if (type == 'E')
        return on_error(c, body, len);
    if (type == 'Z')
        return on_ready(c, body, len);
    if (s->done == s->count) {
        fail(c, "message %c although nothing was asked", type);
        return false;
    }
    return c->derailed ? check_loosely(c, type, body, len) : check_strictly(c, type, body, len);
}

void check_closed(struct client *c, const char *how)
{
    bool may = c->fatal || (options.chaos && (c->phase != PHASE_READY || c->login->session || c->has_pinned || c->in.len > 0));
    if (may) {
        statistics.lost++;
        client_leave(c, false);
    } else {
        fail(c, "the connection was closed: %s", how);
    }
}
