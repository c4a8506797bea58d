/* Prepared statements: texts shared, clients' names, what a server connection has.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/prepared.h"

#include "base/mem.h"
#include "tap.h"

static struct statements all;

static struct statement *take(const char *sql)
{
    return statement_take(&all, (struct text){sql, strlen(sql) + 1});
}

static void test_statements(void)
{
    struct statement *a = take("SELECT 1"), *b = take("SELECT 1"), *c = take("SELECT 2");
    ok(a == b && a != c, "one text is one statement");
    is_int(a->refs, 2, "with two references");
    is_int(all.bytes, 18, "whose bytes are counted once");
    ok(strcmp(a->name, c->name) != 0 && strlen(a->name) < STATEMENT_NAME, "names differ");
    ok(strncmp(a->name, all.prefix, strlen(all.prefix)) == 0, "and begin with our prefix");
    char first[STATEMENT_NAME];
    memcpy(first, a->name, sizeof(first));
    statement_drop(&a);
    ok(a == NULL, "a dropped one is NULL");
    statement_drop(&b);
    is_int(all.bytes, 9, "the last reference frees the text");
    a = take("SELECT 1");
    ok(strcmp(a->name, first) != 0, "the same text later has another name: no name is used twice");
    statement_drop(&a);
    statement_drop(&c);
    is_int(all.by_tail.count, 0, "nothing is left");
    statement_drop(&c);
    ok(true, "dropping NULL does nothing");

    struct statement *bare = statement_take(&all, TEXT("S\0\0\0")), *typed = statement_take(&all, TEXT("S\0\0\1\0\0\0\x17"));
    ok(bare != typed, "other parameter types make another statement");
    char *text = mem_format("ERROR: prepared statement \"%s\" does not exist", bare->name);
    ok(statements_name_in(&all, text_of(text)), "our name is found in a text");
    ok(!statements_name_in(&all, TEXT("postern_0000 of a client")), "a client's is not");
    ok(!statements_name_in(&all, TEXT("")), "nor in no text");
    mem_free(text);
    statement_drop(&bare);
    statement_drop(&typed);

    struct statements other;
    statements_init(&other);
    ok(strcmp(other.prefix, all.prefix) != 0, "two workers do not share a prefix");
    statements_free(&other);
}

static struct named *name(const char *client_name, const char *sql)
{
    struct statement *st = take(sql);
    struct named *n = named_new(text_of(client_name), &st);
    CHECK(n && !st);
    return n;
}

static void test_names(void)
{
    struct names names = {0};
    struct named *a = name("a", "SELECT 1"), *other = name("a", "SELECT 2"), *unnamed = name("", "SELECT 3");
    ok(!names_get(&names, TEXT("a")) && !names_get(&names, TEXT("")), "none at first");
    ok(!names_set(&names, a) && names_get(&names, TEXT("a")) == a, "a name is bound");
    struct named *was = names_set(&names, other);
    ok(was == a && names_get(&names, TEXT("a")) == other, "and bound anew: the old one comes back");
    named_drop(&was);
    ok(!names_set(&names, unnamed) && names_get(&names, TEXT("")) == unnamed, "the unnamed one");
    ok(names_get(&names, TEXT("A")) == NULL, "names have case");
    was = names_unset(&names, TEXT("a"));
    ok(was == other && !names_get(&names, TEXT("a")), "unbound");
    named_drop(&was);
    ok(!names_unset(&names, TEXT("a")), "once");
    names_set(&names, a);
    names_clear(&names, false);
    ok(!names_get(&names, TEXT("a")) && names_get(&names, TEXT("")), "DEALLOCATE ALL spares the unnamed one");
    is_int(a->refs, 1, "and gives the references back");
    names_clear(&names, true);
    ok(!names_get(&names, TEXT("")), "unless told");
    named_drop(&a);
    named_drop(&other);
    named_drop(&unnamed);
    is_int(all.by_tail.count, 0, "no statement is left behind");
}

static void test_prepared(void)
{
    struct prepared p;
    struct statement *st[4];
    prepared_init(&p, 3);
    for (int i = 0; i < 4; i++) {
        char sql[16];
        snprintf(sql, sizeof(sql), "SELECT %d", i);
        st[i] = take(sql);
    }
    for (int i = 0; i < 3; i++) {
        ok(!prepared_evict(&p), "room for number %d", i);
        prepared_add(&p, st[i]);
    }
    is_int(st[0]->refs, 2, "it holds a reference");
    prepared_add(&p, st[0]);
    is_int(st[0]->refs, 2, "added twice it is held once");
    ok(!prepared_has(&p, st[3]) && prepared_has(&p, st[1]), "what it has");
    struct statement *out = prepared_evict(&p);
    ok(out == st[2], "the least recently used goes first");
    statement_drop(&out);
    ok(!prepared_evict(&p), "and makes room");
    prepared_add(&p, st[3]);
    out = prepared_evict(&p);
    ok(out == st[0], "then the next");
    statement_drop(&out);
    prepared_remove(&p, st[1]);
    prepared_remove(&p, st[1]);
    ok(!prepared_has(&p, st[1]) && prepared_has(&p, st[3]), "one is removed");
    prepared_clear(&p);
    ok(!prepared_has(&p, st[3]) && list_is_empty(&p.lru), "all are");
    prepared_add(&p, st[2]);
    prepared_free(&p);
    for (int i = 0; i < 4; i++) {
        is_int(st[i]->refs, 1, "statement %d is only ours again", i);
        statement_drop(&st[i]);
    }
}

int main(void)
{
    statements_init(&all);
    test_statements();
    test_names();
    test_prepared();
    statements_free(&all);
    return tap_done();
}
