/* What a statement may do to its session, told from its words. The grammar that matters is a
 * table of rules: at this step, this keyword has these effects and leads to that step. Calls
 * of certain functions count wherever they stand.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/statement.h"

#include <string.h>

#include "base/check.h"

enum step {
    ANY, /* a statement whose further words do not matter */
    FIRST,
    QUERY, /* SELECT or WITH: only INTO matters */
    INTO,
    EXPLAIN,
    DECLARE,
    DECLARE_WITH,
    CREATE,
    CREATED, /* behind the kind of object */
    CREATED_AS,
    SCHEMA,
    ROUTINE,
    ROUTINE_BEGIN,
    PREPARE,
    EXECUTE, /* the name of a prepared statement comes now */
    BLOCK,   /* behind DO */
    CALL,    /* the name of a procedure, or what follows its dots, comes now */
    CALLED,  /* behind a word of it; state.name holds that */
    PREPARE_TX, /* PREPARE TRANSACTION 'id', or a statement that is called so */
    DEALLOCATE,
    DEALLOCATE_PREPARE,
    DISCARD,
    /* What ends a transaction block, if nothing more comes: */
    COMMIT,
    ROLLBACK,
    ROLLBACK_WORK,
    ENDING, /* END, ABORT */
    ENDING_WORK,
    ENDED,
    CHAINED,
    /* ... and what does not yet: */
    ENDING_AND,
    ENDING_NO,
    SET,    /* the name of a variable comes now */
    SET_DOT,
    /* Behind a first word; state.name holds it, in case it is only the begin of a name. */
    SET_NAME,
    SET_NAMES,
    SET_SCHEMA,
    SET_SESSION,
    SET_CHARACTERISTICS,
    SET_TIME,
    SET_XML,
    SET_LOCAL,
    SET_NOTHING, /* TRANSACTION, CONSTRAINTS: over at the transaction's end */
};

struct rule {
    enum step at;
    const char *word;
    uint32_t effects;
    enum step then;
    const char *names; /* variables that are set, with commas between */
};

static const struct rule rules[] = {
    {FIRST, "select", 0, QUERY, NULL},
    {FIRST, "with", 0, QUERY, NULL},
    {FIRST, "set", 0, SET, NULL},
    {FIRST, "reset", SQL_RESETS, SET, NULL},
    {FIRST, "begin", SQL_BEGIN, ANY, NULL},
    {FIRST, "start", SQL_BEGIN, ANY, NULL},
    {FIRST, "commit", SQL_COMMITS, COMMIT, NULL},
    {FIRST, "end", SQL_COMMITS, ENDING, NULL},
    {FIRST, "abort", 0, ENDING, NULL},
    {FIRST, "rollback", 0, ROLLBACK, NULL},
    {FIRST, "savepoint", SQL_SAVEPOINT, ANY, NULL},
    {FIRST, "explain", 0, EXPLAIN, NULL},
    {FIRST, "prepare", 0, PREPARE, NULL},
    {FIRST, "execute", SQL_EXECUTE, EXECUTE, NULL},
    {FIRST, "deallocate", 0, DEALLOCATE, NULL},
    {FIRST, "discard", 0, DISCARD, NULL},
    {FIRST, "create", 0, CREATE, NULL},
    {FIRST, "drop", SQL_DROP, ANY, NULL},
    {FIRST, "declare", 0, DECLARE, NULL},
    {FIRST, "close", SQL_CLOSE_CURSOR, ANY, NULL},
    {FIRST, "listen", SQL_LISTEN, ANY, NULL},
    {FIRST, "unlisten", SQL_UNLISTEN, ANY, NULL},
    {FIRST, "load", SQL_LOAD, ANY, NULL},
    {FIRST, "do", SQL_DO, BLOCK, NULL},
    {FIRST, "call", SQL_DO, CALL, NULL},
    {FIRST, "copy", SQL_COPY, ANY, NULL},
    {FIRST, "start_replication", SQL_REPLICATION, ANY, NULL},
    {FIRST, "identify_system", SQL_REPLICATION, ANY, NULL},
    {FIRST, "create_replication_slot", SQL_REPLICATION, ANY, NULL},
    {FIRST, "alter_replication_slot", SQL_REPLICATION, ANY, NULL},
    {FIRST, "drop_replication_slot", SQL_REPLICATION, ANY, NULL},
    {FIRST, "read_replication_slot", SQL_REPLICATION, ANY, NULL},
    {FIRST, "timeline_history", SQL_REPLICATION, ANY, NULL},
    {FIRST, "base_backup", SQL_REPLICATION, ANY, NULL},
    {FIRST, "upload_manifest", SQL_REPLICATION, ANY, NULL},

    {QUERY, "into", 0, INTO, NULL},
    {INTO, "temp", SQL_TEMPORARY, QUERY, NULL},
    {INTO, "temporary", SQL_TEMPORARY, QUERY, NULL},
    {INTO, "local", 0, INTO, NULL},
    {INTO, "global", 0, INTO, NULL},
    {INTO, "table", 0, INTO, NULL},
    {INTO, "unlogged", 0, INTO, NULL},
    {EXPLAIN, "analyze", 0, EXPLAIN, NULL},
    {EXPLAIN, "analyse", 0, EXPLAIN, NULL},
    {EXPLAIN, "verbose", 0, EXPLAIN, NULL},
    {EXPLAIN, "commit", 0, ANY, NULL}, /* these cannot be explained */
    {EXPLAIN, "end", 0, ANY, NULL},
    {EXPLAIN, "abort", 0, ANY, NULL},
    {EXPLAIN, "rollback", 0, ANY, NULL},
    {EXPLAIN, "prepare", 0, ANY, NULL},
    {EXPLAIN, "into", 0, INTO, NULL}, /* in EXPLAIN (SELECT ... INTO ...) */

    {DECLARE, "with", 0, DECLARE_WITH, NULL},
    {DECLARE, "for", 0, ANY, NULL},
    {DECLARE_WITH, "hold", SQL_HOLD_CURSOR, ANY, NULL},

    {CREATE, "or", 0, CREATE, NULL},
    {CREATE, "replace", 0, CREATE, NULL},
    {CREATE, "local", 0, CREATE, NULL},
    {CREATE, "global", 0, CREATE, NULL},
    {CREATE, "temp", SQL_TEMPORARY, CREATED, NULL},
    {CREATE, "temporary", SQL_TEMPORARY, CREATED, NULL},
    {CREATE, "schema", 0, SCHEMA, NULL},
    {CREATE, "function", 0, ROUTINE, NULL},
    {CREATE, "procedure", 0, ROUTINE, NULL},
    {CREATED, "as", 0, CREATED_AS, NULL},
    {CREATED_AS, "execute", SQL_EXECUTE, EXECUTE, NULL},
    {SCHEMA, "create", 0, CREATE, NULL},
    {ROUTINE, "begin", 0, ROUTINE_BEGIN, NULL},
    {ROUTINE_BEGIN, "begin", 0, ROUTINE_BEGIN, NULL}, /* RETURNS "begin" needs no quotes */

    {PREPARE, "transaction", 0, PREPARE_TX, NULL},
    {DEALLOCATE, "all", SQL_DEALLOCATE_ALL, ANY, NULL},
    {DEALLOCATE, "prepare", 0, DEALLOCATE_PREPARE, NULL},
    {DEALLOCATE_PREPARE, "all", SQL_DEALLOCATE_ALL, ANY, NULL},
    {DISCARD, "all", SQL_DISCARD_ALL, ANY, NULL},
    {COMMIT, "work", 0, ENDING_WORK, NULL},
    {COMMIT, "transaction", 0, ENDING_WORK, NULL},
    {COMMIT, "and", 0, ENDING_AND, NULL},
    {COMMIT, "prepared", SQL_COMMITS, ANY, NULL},
    {ROLLBACK, "work", 0, ROLLBACK_WORK, NULL},
    {ROLLBACK, "transaction", 0, ROLLBACK_WORK, NULL},
    {ROLLBACK, "to", 0, ANY, NULL},
    {ROLLBACK, "and", 0, ENDING_AND, NULL},
    {ROLLBACK, "prepared", SQL_COMMITS, ANY, NULL},
    {ROLLBACK_WORK, "to", 0, ANY, NULL},
    {ROLLBACK_WORK, "and", 0, ENDING_AND, NULL},
    {ENDING, "work", 0, ENDING_WORK, NULL},
    {ENDING, "transaction", 0, ENDING_WORK, NULL},
    {ENDING, "and", 0, ENDING_AND, NULL},
    {ENDING_WORK, "and", 0, ENDING_AND, NULL},
    {ENDING_AND, "no", 0, ENDING_NO, NULL},
    {ENDING_AND, "chain", 0, CHAINED, NULL},
    {ENDING_NO, "chain", 0, ENDED, NULL},

    {SET, "all", SQL_RESETS, ANY, NULL},
    {SET, "local", 0, SET_LOCAL, NULL},
    {SET, "transaction", 0, SET_NOTHING, NULL},
    {SET, "constraints", 0, SET_NOTHING, NULL},
    {SET, "session", 0, SET_SESSION, NULL},
    {SET, "time", 0, SET_TIME, NULL},
    {SET, "names", 0, SET_NAMES, NULL},
    {SET, "schema", 0, SET_SCHEMA, NULL},
    {SET, "xml", 0, SET_XML, NULL},
    {SET_LOCAL, "datestyle", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "intervalstyle", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "timezone", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "time", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "timezone_abbreviations", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "standard_conforming_strings", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "backslash_quote", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "transform_null_equals", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "array_nulls", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "xmloption", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "xml", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "lc_monetary", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "lc_numeric", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_LOCAL, "lc_time", SQL_READS_OTHERWISE, ANY, NULL},
    {SET_TIME, "zone", 0, ANY, "timezone"},
    {SET_XML, "option", 0, ANY, "xmloption"},
    {SET_SESSION, "authorization", 0, ANY, "session_authorization"},
    {SET_SESSION, "characteristics", 0, SET_CHARACTERISTICS, NULL},
    {SET_CHARACTERISTICS, "as", 0, ANY,
     "default_transaction_isolation,default_transaction_read_only,default_transaction_deferrable"},
};

enum { CALLS = SQL_SET_CONFIG | SQL_ADVISORY_LOCK | SQL_ADVISORY_UNLOCK | SQL_SEQUENCE | SQL_SEQUENCE_READ | SQL_SEED | SQL_LOAD };

static struct text word_of(const struct sql_scan_state *st)
{
    return (struct text){st->word, st->word_len};
}

static bool is_keyword(const struct sql_scan_state *st, const char *word)
{
    return !st->word_quoted && !st->word_clipped && text_is(word_of(st), word);
}

static const struct rule *rule_for(const struct sql_scan_state *st, enum step at)
{
    for (size_t i = 0; st->word_len && i < COUNT_OF(rules); i++)
        if (rules[i].at == at && rules[i].word[0] == st->word[0] && is_keyword(st, rules[i].word))
            return &rules[i];
    return NULL;
}

/* ---- names of variables -------------------------------------------------------------------- */

static void tell_touched(struct sql_scan *s, uint32_t use, struct text name)
{
    if (s->touches)
        s->touches(s->touches_arg, use, name);
}

static void name_add(struct sql_scan *s, struct text name)
{
    if (name.len >= SQL_NAME_BYTES) {
        s->effects |= SQL_SETS_UNKNOWN;
        return;
    }
    s->effects |= SQL_SETS;
    tell_touched(s, s->state.is_reset ? SQL_RESETS : SQL_SETS, name);
}

static void names_add(struct sql_scan *s, const char *names)
{
    struct text rest = text_of(names), name;
    while (names && text_split(&rest, ',', &name))
        name_add(s, name);
}

/* Puts the word behind what state.name holds; false when it cannot be known. */
static bool name_extend(struct sql_scan_state *st)
{
    if (st->word_opaque || st->word_clipped || st->name_len + st->word_len > SQL_NAME_BYTES)
        return false;
    for (size_t i = 0; i < st->word_len; i++) {
        char c = st->word[i];
        st->name[st->name_len++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    return true;
}

/* The word is the begin of a variable's name or of one of SET's special forms. */
static enum step set_word(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    const struct rule *rule = rule_for(st, SET);
    st->name_len = 0;
    if (rule && rule->effects) {
        s->resets_all = true;
        return ANY;
    }
    if (name_extend(st))
        return rule ? rule->then : SET_NAME;
    s->effects |= SQL_SETS_UNKNOWN;
    return ANY;
}

static enum step set_dot_word(struct sql_scan *s)
{
    if (name_extend(&s->state))
        return SET_NAME;
    s->effects |= SQL_SETS_UNKNOWN;
    return ANY;
}

static void tell_name(struct sql_scan *s, uint32_t use, bool known)
{
    if (s->named)
        s->named(s->named_arg, use, known ? word_of(&s->state) : (struct text){NULL, 0});
}

static bool word_is_known(const struct sql_scan_state *st)
{
    return !st->word_opaque && !st->word_clipped;
}

static void target_is(struct sql_scan *s, bool known)
{
    s->effects |= SQL_DEALLOCATE;
    tell_name(s, SQL_DEALLOCATE, known);
    s->target_too_long = !known || !text_to_array(word_of(&s->state), s->target, sizeof(s->target));
    if (s->target_too_long)
        s->target[0] = '\0';
}

/* ---- steps --------------------------------------------------------------------------------- */

/* What the statement so far amounts to when no rule takes it further. */
static void settle(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    switch ((enum step)st->step) {
    case SET_NAME:
        name_add(s, (struct text){st->name, st->name_len});
        break;
    case SET_NAMES:
        names_add(s, "client_encoding");
        break;
    case SET_SCHEMA:
        names_add(s, "search_path");
        break;
    case SET_SESSION:
    case SET_CHARACTERISTICS:
    case SET_TIME:
    case SET_XML:
    case SET_DOT:
        s->effects |= SQL_SETS_UNKNOWN;
        break;
    case DISCARD:
        s->effects |= SQL_DISCARD;
        break;
    case PREPARE:
        s->effects |= SQL_PREPARE;
        break;
    default:
        break;
    }
}

/* The statement is over. What ends a transaction block is told only of one that has nothing more: of
 * anything else the server may say that it is an error, and the block goes on. */
static void settle_whole(struct sql_scan *s)
{
    switch ((enum step)s->state.step) {
    case COMMIT:
    case ROLLBACK:
    case ROLLBACK_WORK:
    case ENDING:
    case ENDING_WORK:
    case ENDED:
        s->effects |= SQL_END;
        break;
    case CHAINED:
        s->effects |= SQL_END | SQL_BEGIN | SQL_CHAIN;
        break;
    default:
        settle(s);
    }
}

/* Where a token leads that no rule names. */
static enum step otherwise(enum step at)
{
    switch (at) {
    case QUERY:
    case DECLARE:
    case CREATED:
    case SCHEMA:
    case ROUTINE:
    case EXPLAIN:
        return at;
    case INTO:
        return QUERY;
    case DECLARE_WITH:
        return DECLARE;
    case CREATE:
    case CREATED_AS:
        return CREATED;
    case ROUTINE_BEGIN:
        return ROUTINE;
    default:
        return ANY;
    }
}

static enum step unruled_word(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    enum step at = (enum step)st->step;
    switch (at) {
    case SET_SESSION:
        return set_word(s);
    case CALL:
        st->name_len = 0;
        if (word_is_known(st)) /* as it is: the case of a quoted one matters */
            memcpy(st->name, st->word, st->name_len = st->word_len);
        return CALLED;
    case PREPARE_TX:
        s->effects |= SQL_PREPARE;
        if (s->named)
            s->named(s->named_arg, SQL_PREPARE, TEXT("transaction"));
        return ANY;
    case PREPARE:
    case EXECUTE:
        tell_name(s, at == PREPARE ? SQL_PREPARE : SQL_EXECUTE, word_is_known(st));
        settle(s);
        return ANY;
    case DEALLOCATE:
    case DEALLOCATE_PREPARE:
        target_is(s, word_is_known(st));
        return ANY;
    case SET_LOCAL:
        if (st->word_quoted || st->word_opaque)
            s->effects |= SQL_READS_OTHERWISE; /* it may be one of those */
        return ANY;
    case ROUTINE_BEGIN:
        if (!is_keyword(st, "atomic"))
            return ROUTINE;
        st->atomic = true;
        return FIRST;
    default:
        settle(s);
        return otherwise(at);
    }
}

static void step_word(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    enum step at = (enum step)st->step;
    if (at == ANY)
        return;
    if (at == SET || at == SET_DOT) {
        st->step = (uint8_t)(at == SET ? set_word(s) : set_dot_word(s));
        return;
    }
    /* The statements of a function's body stand as such, and END is its last word. */
    if (at == FIRST && st->atomic && is_keyword(st, "end")) {
        st->atomic = false;
        st->step = CREATED;
        return;
    }
    const struct rule *rule = rule_for(st, at);
    if (!rule && at == EXPLAIN && st->parens == 0)
        rule = rule_for(st, FIRST);
    if (!rule) {
        st->step = (uint8_t)(at == EXPLAIN && st->parens == 0 ? ANY : unruled_word(s));
        return;
    }
    s->effects |= rule->effects;
    s->has_block = s->has_block || rule->then == BLOCK;
    st->is_reset = st->is_reset || (rule->effects & SQL_RESETS);
    names_add(s, rule->names);
    if (rule->then == SET_CHARACTERISTICS) {
        st->name_len = 0;
        CHECK(name_extend(st));
    }
    st->step = (uint8_t)rule->then;
}

/* A token that is no word, outside parentheses. */
static void step_other(struct sql_scan *s, bool literal)
{
    struct sql_scan_state *st = &s->state;
    if (st->step == PREPARE_TX)
        s->effects |= literal ? SQL_COMMITS : SQL_PREPARE;
    if (st->step == PREPARE_TX && literal) {
        st->step = ENDED;
        return;
    }
    settle(s);
    st->step = (uint8_t)otherwise((enum step)st->step);
}

/* ---- tokens -------------------------------------------------------------------------------- */

static void token(struct sql_scan *s)
{
    if (!s->state.empty)
        return;
    s->state.empty = false;
    s->statements++;
}

static void forget(struct sql_scan_state *st)
{
    st->if_call = st->if_dot = st->uescape = 0;
}

static uint32_t call_effects(const struct sql_scan_state *st)
{
    static const struct {
        const char *word;
        uint32_t effects;
    } calls[] = {
        {"set_config", SQL_SET_CONFIG},
        {"setval", SQL_SEQUENCE},
        {"setseed", SQL_SEED},
        {"nextval", SQL_SEQUENCE},
        {"currval", SQL_SEQUENCE_READ},
        {"lastval", SQL_SEQUENCE_READ},
        {"pg_advisory_lock", SQL_ADVISORY_LOCK},
        {"pg_advisory_lock_shared", SQL_ADVISORY_LOCK},
        {"pg_try_advisory_lock", SQL_ADVISORY_LOCK},
        {"pg_try_advisory_lock_shared", SQL_ADVISORY_LOCK},
        {"pg_advisory_unlock", SQL_ADVISORY_UNLOCK},
        {"pg_advisory_unlock_shared", SQL_ADVISORY_UNLOCK},
        {"pg_advisory_unlock_all", SQL_ADVISORY_UNLOCK},
        {"pg_backup_start", SQL_LOAD},
        {"pg_start_backup", SQL_LOAD},
        {"pg_replication_origin_session_setup", SQL_LOAD},
        {"pg_create_logical_replication_slot", SQL_LOAD},
        {"pg_create_physical_replication_slot", SQL_LOAD},
        {"pg_copy_logical_replication_slot", SQL_LOAD},
        {"pg_copy_physical_replication_slot", SQL_LOAD},
    };
    if (st->word_opaque)
        return CALLS;
    for (size_t i = 0; st->word_len && i < COUNT_OF(calls); i++)
        if (calls[i].word[0] == st->word[0] && text_is(word_of(st), calls[i].word))
            return calls[i].effects;
    return 0;
}

/* Whether a schema of this name would make an object temporary here. */
static bool is_temporary_schema(const struct sql_scan_state *st)
{
    switch ((enum step)st->step) {
    case INTO:
    case CREATE:
    case CREATED:
    case CREATED_AS:
    case SCHEMA:
    case ROUTINE:
        return st->word_opaque || text_starts(word_of(st), "pg_temp");
    default:
        return false;
    }
}

void statement_start(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    st->step = FIRST;
    st->is_reset = false;
    st->parens = 0;
    st->empty |= !st->atomic;
    forget(st);
}

void statement_word(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    token(s);
    /* U&"name" UESCAPE '!': both words belong to the name. */
    if (st->uescape == 1 && is_keyword(st, "uescape")) {
        st->uescape = 2;
        return;
    }
    bool temporary = is_temporary_schema(st);
    if (st->parens == 0 || st->step == QUERY || st->step == INTO || st->step == EXPLAIN)
        step_word(s);
    st->if_call = call_effects(st);
    st->if_dot = temporary ? SQL_TEMPORARY : 0;
    st->uescape = st->word_opaque;
}

void statement_literal(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    token(s);
    if (st->uescape == 2) {
        st->uescape = 0;
        return;
    }
    forget(st);
    if (st->parens == 0)
        step_other(s, true);
}

static void tell_end(struct sql_scan *s)
{
    struct sql_scan_state *st = &s->state;
    const char *behind = st->at == st->end ? st->at : st->at + 1;
    if (s->ended && !st->empty && !st->atomic)
        s->ended(s->ended_arg, s->statements, (struct text){st->statement, (size_t)(st->at - st->statement)}, behind);
    if (!st->atomic)
        st->statement = behind;
}

void statement_mark(struct sql_scan *s, char c)
{
    struct sql_scan_state *st = &s->state;
    if (c == ';' && st->parens == 0) {
        settle_whole(s);
        if (st->step == DEALLOCATE_PREPARE)
            target_is(s, true); /* a statement that is called "prepare", the last word */
        tell_end(s);
        statement_start(s);
        return;
    }
    token(s);
    if (c == '(')
        s->effects |= st->if_call;
    if (c == '.')
        s->effects |= st->if_dot;
    forget(st);
    if (c == '.' && st->parens == 0 && st->step >= SET_NAME) {
        if (st->name_len < SQL_NAME_BYTES)
            st->name[st->name_len++] = '.';
        st->step = SET_DOT;
    } else if (c == '.' && st->step == CALLED) {
        st->step = CALL;
    } else if (c == '(' && st->step == CALLED) {
        tell_touched(s, SQL_DO, (struct text){st->name_len ? st->name : NULL, st->name_len});
        st->step = ANY;
    } else if (c == '(' && st->step == FIRST) {
        st->step = QUERY;
    } else if (st->parens == 0) {
        step_other(s, false);
    }
    if (c == '(')
        st->parens++;
    if (c == ')' && st->parens > 0)
        st->parens--;
}

void statement_end(struct sql_scan *s)
{
    s->state.parens = 0;
    statement_mark(s, ';');
}

void statement_break(struct sql_scan *s)
{
    if (s->state.step >= COMMIT && s->state.step <= CHAINED)
        s->state.step = ANY;
}

void statement_doubt(struct sql_scan *s)
{
    s->in_doubt = true;
    s->statements++;
    s->has_block = true;
    s->effects |= CALLS | SQL_SETS_UNKNOWN | SQL_LISTEN | SQL_HOLD_CURSOR | SQL_TEMPORARY |
                  SQL_PREPARE | SQL_DEALLOCATE_ALL | SQL_LOAD | SQL_DO;
}
