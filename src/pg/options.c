/* Switches of the startup parameter `options`.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

/* value NULL: the switch's argument. name NULL: the server takes it and does nothing. */
static const struct {
    char letter;
    bool takes_argument;
    const char *name, *value;
} switches[] = {
    {'B', true, "shared_buffers", NULL},
    {'C', true, NULL, NULL},
    {'D', true, NULL, NULL},
    {'E', false, NULL, NULL},
    {'F', false, "fsync", "false"},
    {'N', true, "max_connections", NULL},
    {'O', false, "allow_system_table_mods", "true"},
    {'P', false, "ignore_system_indexes", "true"},
    {'S', true, "work_mem", NULL},
    {'T', false, NULL, NULL},
    {'W', true, "post_auth_delay", NULL},
    {'b', false, NULL, NULL},
    {'e', false, "datestyle", "euro"},
    {'h', true, "listen_addresses", NULL},
    {'i', false, "listen_addresses", "*"},
    {'j', false, NULL, NULL},
    {'k', true, "unix_socket_directories", NULL},
    {'l', false, "ssl", "true"},
    {'n', false, NULL, NULL},
    {'p', true, "port", NULL},
    {'r', true, NULL, NULL},
    {'s', false, "log_statement_stats", "true"},
    {'v', true, NULL, NULL},
};

/* -f and -t: the first letters of the argument choose. */
static const struct {
    char letter;
    const char *argument, *name, *value;
} choices[] = {
    {'f', "s", "enable_seqscan", "false"},      {'f', "i", "enable_indexscan", "false"},
    {'f', "o", "enable_indexonlyscan", "false"}, {'f', "b", "enable_bitmapscan", "false"},
    {'f', "t", "enable_tidscan", "false"},      {'f', "n", "enable_nestloop", "false"},
    {'f', "m", "enable_mergejoin", "false"},    {'f', "h", "enable_hashjoin", "false"},
    {'t', "pa", "log_parser_stats", "true"},    {'t', "pl", "log_planner_stats", "true"},
    {'t', "e", "log_executor_stats", "true"},
};

struct walk {
    struct text rest;
    char *word; /* the present one, unescaped; room for the whole input */
    size_t len;
    void (*visit)(void *, struct text, struct text);
    void *arg;
    char *fault;
};

static bool is_space(char c)
{
    return c && strchr(" \t\n\r\f\v", c);
}

/* The next word: false when there is none (pg_split_opts of the server). */
static bool next_word(struct walk *w)
{
    struct text *in = &w->rest;
    size_t i = 0;
    w->len = 0;
    while (i < in->len && is_space(in->at[i]))
        i++;
    for (; i < in->len && !is_space(in->at[i]); i++) {
        if (in->at[i] == '\\' && i + 1 < in->len)
            i++;
        w->word[w->len++] = in->at[i];
    }
    w->word[w->len] = '\0';
    in->at += i;
    in->len -= i;
    return w->len > 0;
}

static bool is_wrong(struct walk *w, const char *before, const char *what, const char *after)
{
    snprintf(w->fault, OPTIONS_FAULT, "%s%.80s%s", before, what, after);
    return false;
}

static bool is_invalid(struct walk *w, const char *word)
{
    return is_wrong(w, "invalid command-line argument for server process: ", word, "");
}

/* name=value behind a switch of that many dashes and letters. */
static bool setting(struct walk *w, char *at, size_t len, const char *dashes)
{
    char *eq = memchr(at, '=', len);
    size_t name_len = eq ? (size_t)(eq - at) : len;
    if (!eq || name_len == 0)
        return is_wrong(w, dashes, at, " requires a value");
    for (size_t i = 0; i < name_len; i++)
        if (at[i] == '-')
            at[i] = '_';
    w->visit(w->arg, (struct text){at, name_len}, (struct text){eq + 1, len - name_len - 1});
    return true;
}

static void put(struct walk *w, const char *name, const char *value)
{
    w->visit(w->arg, text_of(name), text_of(value));
}

/* -d: the server's debugging level. */
static void debug(struct walk *w, long level)
{
    char value[16];
    snprintf(value, sizeof(value), "debug%ld", level < 1 ? 1 : level > 9 ? 9 : level);
    put(w, "log_min_messages", level > 0 ? value : "notice");
    static const struct {
        int from;
        const char *name, *value;
    } more[] = {{2, "log_statement", "all"},
                {3, "debug_print_parse", "true"},
                {4, "debug_print_plan", "true"},
                {5, "debug_print_rewritten", "true"}};
    for (size_t i = 0; i < COUNT_OF(more); i++)
        if (level >= more[i].from)
            put(w, more[i].name, more[i].value);
}

/* A switch with its argument: false when it is none. */
static bool with_argument(struct walk *w, char letter, char *argument, size_t len)
{
    if (letter == 'c')
        return setting(w, argument, len, "-c ");
    if (letter == 'd') {
        debug(w, strtol(argument, NULL, 10));
        return true;
    }
    for (size_t i = 0; i < COUNT_OF(choices); i++)
        if (choices[i].letter == letter && text_starts(text_of(argument), choices[i].argument)) {
            put(w, choices[i].name, choices[i].value);
            return true;
        }
    for (size_t i = 0; i < COUNT_OF(switches); i++)
        if (switches[i].letter == letter) {
            if (switches[i].name)
                put(w, switches[i].name, switches[i].value ? switches[i].value : argument);
            return true;
        }
    return is_invalid(w, argument);
}

static bool takes_argument(char letter, bool *is_known)
{
    *is_known = true;
    if (strchr("cdft", letter))
        return true;
    for (size_t i = 0; i < COUNT_OF(switches); i++)
        if (switches[i].letter == letter)
            return switches[i].takes_argument;
    *is_known = false;
    return false;
}

/* A word of letters behind one dash, as getopt() reads it. */
static bool letters(struct walk *w)
{
    for (size_t i = 1; i < w->len; i++) {
        char letter = w->word[i];
        bool is_known;
        bool takes = letter && takes_argument(letter, &is_known);
        if (!letter || !is_known)
            return is_invalid(w, w->word);
        if (takes && i + 1 < w->len)
            return with_argument(w, letter, w->word + i + 1, w->len - i - 1);
        if (takes)
            return next_word(w) ? with_argument(w, letter, w->word, w->len)
                                : is_invalid(w, (char[]){'-', letter, 0});
        if (!with_argument(w, letter, w->word + w->len, 0))
            return false;
    }
    return true;
}

bool options_put(struct buf *to, struct text name, struct text value)
{
    const struct text parts[] = {name, TEXT("="), value};
    bool ok = buf_put_text(to, to->len ? " -c " : "-c ");
    for (size_t p = 0; p < COUNT_OF(parts); p++)
        for (size_t i = 0; ok && i < parts[p].len; i++) {
            if (is_space(parts[p].at[i]) || parts[p].at[i] == '\\')
                ok = buf_put(to, "\\", 1);
            ok = ok && buf_put(to, parts[p].at + i, 1);
        }
    return ok;
}

bool options_each(struct text options, void (*visit)(void *, struct text, struct text), void *arg, char *fault)
{
    struct walk w = {options, mem_try(options.len + 1), 0, visit, arg, fault};
    fault[0] = '\0';
    bool ok = w.word || is_wrong(&w, "out of memory", "", "");
    while (ok && next_word(&w)) {
        if (w.len > 2 && memcmp(w.word, "--", 2) == 0)
            ok = setting(&w, w.word + 2, w.len - 2, "--");
        else if (w.len > 1 && w.word[0] == '-' && w.word[1] != '-')
            ok = letters(&w);
        else
            ok = is_invalid(&w, w.word);
    }
    mem_free(w.word);
    return ok;
}
