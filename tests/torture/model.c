/* The server's rules for variables, transactions and savepoints.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "torture.h"

const char *const variable_names[VAR_COUNT] = {
    "application_name", "DateStyle", "TimeZone", "client_encoding", "search_path", "statement_timeout",
    "work_mem", "torture.own", "extra_float_digits", "default_transaction_isolation", "row_security"};

const char *model_shows(const struct model *m, enum variable v)
{
    return m->now.is_local[v] ? m->now.local[v] : m->now.session[v];
}

void model_set(struct model *m, enum variable v, const char *value, bool local)
{
    char *to = local ? m->now.local[v] : m->now.session[v];
    size_t n = strnlen(value, VALUE - 1);
    memmove(to, value, n); /* value may be one of the model's own */
    to[n] = '\0';
    m->now.is_local[v] = local;
}

void model_reset(struct model *m, enum variable v)
{
    model_set(m, v, m->startup[v], false);
}

void model_reset_all(struct model *m)
{
    for (int v = 0; v < VAR_COUNT; v++)
        model_reset(m, v);
}

static void end_locals(struct model *m)
{
    memset(m->now.is_local, 0, sizeof(m->now.is_local));
}

void model_enter(struct model *m)
{
    if (m->status != 'I')
        return;
    m->implicit = true;
    m->before = m->now;
    m->save_count = 0;
}

void model_leave(struct model *m)
{
    if (m->implicit)
        end_locals(m);
    m->implicit = false;
}

void model_begin(struct model *m)
{
    if (m->status != 'I')
        return;
    if (!m->implicit)
        m->before = m->now;
    m->save_count = 0;
    m->implicit = false;
    m->status = 'T';
}

void model_commit(struct model *m)
{
    if (m->status == 'E') {
        model_rollback(m);
        return;
    }
    end_locals(m);
    m->save_count = 0;
    m->status = 'I';
    m->before = m->now;
}

void model_rollback(struct model *m)
{
    m->now = m->before;
    m->save_count = 0;
    m->status = 'I';
}

bool model_save(struct model *m)
{
    if (m->save_count == SAVES_MAX)
        return false;
    m->saves[m->save_count++] = m->now;
    return true;
}

void model_rollback_to(struct model *m, int save)
{
    m->now = m->saves[save];
    m->save_count = save + 1;
    m->status = 'T';
}

void model_release(struct model *m, int save)
{
    m->save_count = save;
}

void model_error(struct model *m)
{
    if (m->status == 'T')
        m->status = 'E';
    else if (m->status == 'I')
        m->now = m->before;
}

static const char *const styles[][2] = {{"ISO, DMY", "ISO, DMY"}, {"ISO, YMD", "ISO, YMD"}, {"German", "German, DMY"}, {"SQL, MDY", "SQL, MDY"}};
static const char *const zones[] = {"Europe/Berlin", "America/New_York", "Asia/Tokyo", "UTC"};
static const char *const encodings[] = {"LATIN1", "SQL_ASCII", "WIN1252", "UTF8"};
static const char *const digits[] = {"0", "-3", "3", "1"};
static const char *const levels[] = {"repeatable read", "read committed"};

void variable_value(enum variable v, int client, uint32_t serial, uint32_t random, char *set, char *shown)
{
    const char *fixed = NULL, *said = NULL;
    switch (v) {
    case VAR_APPLICATION_NAME:
    case VAR_CUSTOM:
        snprintf(shown, VALUE, "c%d-v%u", client, serial);
        break;
    case VAR_SEARCH_PATH:
        snprintf(shown, VALUE, "c%d_v%u, public", client, serial);
        snprintf(set, VALUE, "c%d_v%u, public", client, serial);
        return;
    case VAR_STATEMENT_TIMEOUT:
        snprintf(shown, VALUE, "%dms", 1000000 + client * 1000 + 1 + (int)(serial % 998));
        break;
    case VAR_WORK_MEM:
        snprintf(shown, VALUE, "%dkB", 100001 + client * 1000 + 2 * (int)(serial % 499));
        break;
    case VAR_DATESTYLE:
        said = styles[random % 4][0];
        fixed = styles[random % 4][1];
        break;
    case VAR_TIMEZONE:
        fixed = zones[random % 4];
        break;
    case VAR_CLIENT_ENCODING:
        fixed = encodings[random % 4];
        break;
    case VAR_FLOAT_DIGITS:
        fixed = digits[random % 4];
        break;
    case VAR_ISOLATION:
        fixed = levels[random % 2];
        break;
    default:
        fixed = random % 2 ? "on" : "off";
        break;
    }
    if (fixed)
        snprintf(shown, VALUE, "%s", fixed);
    snprintf(set, VALUE, "'%.60s'", said ? said : shown);
}

bool variable_is_own(enum variable v, int client, const char *shown)
{
    char own[VALUE];
    switch (v) {
    case VAR_APPLICATION_NAME:
    case VAR_CUSTOM:
        snprintf(own, sizeof(own), "c%d-", client);
        return strncmp(shown, own, strlen(own)) == 0;
    case VAR_SEARCH_PATH:
        snprintf(own, sizeof(own), "c%d_", client);
        return strncmp(shown, own, strlen(own)) == 0;
    case VAR_STATEMENT_TIMEOUT:
        return (atoi(shown) - 1000000) / 1000 == client;
    case VAR_WORK_MEM:
        return (atoi(shown) - 100001) / 1000 == client;
    default:
        return true;
    }
}
