/* Reads SQL text in pieces of any size and notes what its statements may do to the session
 * beyond their transaction. It is no parser: it knows comments, strings, quoted names, dollar
 * quotes and statement ends exactly (scan.l of PostgreSQL 15), and keywords where they matter.
 * In doubt it reports an effect that is not there, never the reverse. What a function, view or
 * trigger does inside the server is beyond it. Text is taken to be in an encoding that a
 * server may have: in the client-only ones (SJIS, BIG5, GBK, GB18030, UHC, JOHAB) a second
 * byte may look like a backslash, and an E'' string may end elsewhere. Pure, no memory taken.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_PG_LEXER_H
#define POSTERN_PG_LEXER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum sql_effect {
    SQL_SETS = 1u << 0,          /* SET / RESET of variables: touches() is told which */
    SQL_SETS_UNKNOWN = 1u << 1,  /* ... of one whose name cannot be read: touches() is not told */
    SQL_SET_CONFIG = 1u << 2,    /* a call of set_config(): names cannot be known */
    SQL_LISTEN = 1u << 3,
    SQL_UNLISTEN = 1u << 4,
    SQL_HOLD_CURSOR = 1u << 5,   /* DECLARE ... WITH HOLD */
    SQL_CLOSE_CURSOR = 1u << 6,
    SQL_TEMPORARY = 1u << 7,     /* CREATE [LOCAL|GLOBAL] TEMP[ORARY] ..., SELECT INTO TEMP, names in pg_temp */
    SQL_DROP = 1u << 8,          /* DROP ...: may remove a temporary object */
    SQL_PREPARE = 1u << 9,       /* PREPARE name AS (not PREPARE TRANSACTION) */
    SQL_DEALLOCATE = 1u << 10,   /* DEALLOCATE [PREPARE] name: target says which */
    SQL_DEALLOCATE_ALL = 1u << 11,
    SQL_ADVISORY_LOCK = 1u << 12,/* pg_advisory_lock..., pg_try_advisory_lock... but not ..._xact_... */
    SQL_ADVISORY_UNLOCK = 1u << 13,
    SQL_DISCARD_ALL = 1u << 14,
    SQL_DISCARD = 1u << 15,      /* DISCARD TEMP, PLANS, SEQUENCES */
    SQL_LOAD = 1u << 16,         /* LOAD, and calls that mark the server process (pg_backup_start(, a replication slot) */
    SQL_BEGIN = 1u << 17,        /* BEGIN, START TRANSACTION */
    SQL_END = 1u << 18,          /* COMMIT, END, ROLLBACK (not TO a savepoint), ABORT, PREPARE
                                    TRANSACTION; with AND CHAIN also SQL_BEGIN. Never reported in
                                    doubt: nothing else stands in the statement */
    SQL_EXECUTE = 1u << 19,      /* EXECUTE name */
    SQL_DO = 1u << 20,           /* DO block or CALL: may do anything */
    SQL_COPY = 1u << 21,
    SQL_SEQUENCE = 1u << 22,     /* nextval(, setval(: what currval() and lastval() will say */
    SQL_REPLICATION = 1u << 23,  /* START_REPLICATION, IDENTIFY_SYSTEM, CREATE_REPLICATION_SLOT...: first words only */
    SQL_RESETS = 1u << 24,       /* RESET (DISCARD ALL has a bit of its own, SET x TO DEFAULT has none) */
    SQL_COMMITS = 1u << 25,      /* COMMIT, END, PREPARE TRANSACTION; without SQL_END COMMIT PREPARED and
                                    ROLLBACK PREPARED, which last at once and end no block */
    SQL_SEQUENCE_READ = 1u << 26,/* currval(, lastval(: what this session's nextval() gave */
    SQL_SEED = 1u << 27,         /* setseed(: random() follows from it; SET seed is one of names[] */
    SQL_READS_OTHERWISE = 1u << 28,/* SET LOCAL of what decides how a text is read (var_decides_reading()) */
    SQL_CHAIN = 1u << 29,        /* beside SQL_END and SQL_BEGIN: AND CHAIN */
    SQL_SAVEPOINT = 1u << 30     /* SAVEPOINT name */
};

enum { SQL_NAME_BYTES = 128, SQL_WORD_BYTES = 63 /* NAMEDATALEN - 1 */ };

struct sql_scan {
    /* results, valid after sql_scan_end() */
    uint32_t effects;      /* of all statements together */
    uint32_t statements;   /* that are not empty */
    bool resets_all;       /* RESET ALL */
    bool has_block;        /* a DO block, which SQL_DO does not tell from a CALL */
    char target[SQL_NAME_BYTES]; /* of the last DEALLOCATE name, folded like an identifier */
    bool target_too_long; /* or not readable: U&"..." */
    bool in_doubt;        /* where its statements end cannot be told */
    /* Set behind sql_scan_begin(), or NULL: called for each prepared statement that is named, in
     * order. use is SQL_PREPARE, SQL_EXECUTE (in EXPLAIN and CREATE TABLE AS too) or SQL_DEALLOCATE;
     * the name is as the server has it, its at NULL where it cannot be read (U&"...", too long). */
    void (*named)(void *arg, uint32_t use, struct text name);
    void *named_arg;
    /* Likewise, for each variable that is set (SQL_SETS) or reset (SQL_RESETS) and each procedure that is
     * called (SQL_DO), in order. Variables as the server calls them: SET TIME ZONE is "timezone", SET NAMES
     * "client_encoding", SET SCHEMA "search_path", SET ROLE "role", SET SESSION AUTHORIZATION
     * "session_authorization", SET SESSION CHARACTERISTICS the three default_transaction_*, SET XML OPTION
     * "xmloption"; names in lower case (quoted ones too: the server does not care), dotted ones joined.
     * SET LOCAL and SET TRANSACTION are not told. A procedure without its schema, its at NULL where it
     * cannot be read. */
    void (*touches)(void *arg, uint32_t use, struct text name);
    void *touches_arg;
    /* The same for a text that is fed whole: called where a statement ends that is not empty, with its
     * number from 1 on, its text, and what is behind its semicolon, which may be the end of the text. */
    void (*ended)(void *arg, uint32_t number, struct text statement, const char *behind);
    void *ended_arg;
    /* The lexer's own: bytes to tokens (lexer.c), tokens to effects (statement.c). */
    struct sql_scan_state {
        uint32_t comment_depth, parens;
        uint32_t if_call, if_dot; /* effects, should the next token be "(" or "." */
        uint8_t lexeme, string, last, run;
        uint8_t word_len, tag_len, matched, name_len;
        uint8_t step, uescape;
        bool standard_strings, newline, word_quoted, word_opaque, word_clipped;
        bool tag_clipped, empty, atomic, is_reset;
        const char *at, *end, *statement; /* where it reads, and to where; where the present statement began */
        char word[SQL_WORD_BYTES], tag[SQL_WORD_BYTES], name[SQL_NAME_BYTES];
    } state;
};

/* standard_strings: the session's standard_conforming_strings (on unless told). */
void sql_scan_begin(struct sql_scan *s, bool standard_strings);
void sql_scan_feed(struct sql_scan *s, const char *at, size_t len);
void sql_scan_end(struct sql_scan *s);

/* An encoding in which a byte that looks like ASCII may be a part of a character (of clients only, PostgreSQL's
 * documentation, "Supported Character Sets"): texts in it may be something else than the lexer reads. name: as the
 * server reports it. */
bool sql_encoding_is_unsafe(struct text name);

/* A first look that costs almost nothing: false when the text certainly has no effect (it
 * starts with SELECT, INSERT, UPDATE, DELETE or WITH in any case, is one piece, and holds none
 * of the bytes or words that could matter); true: scan it. */
bool sql_may_have_effects(const char *at, size_t len);

#endif
