/* Prepared statements: texts shared, clients' names, what a server connection has.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/prepared.h"

#include "base/mem.h"
#include "pg/execute.h"
#include "tap.h"

static struct statements all;

static struct statement *take(const char *sql)
{
    return statement_new(&all, (struct text){sql, strlen(sql) + 1}, NULL, false);
}

static void test_statements(void)
{
    struct statement *a = take("SELECT 1"), *b = take("SELECT 1"), *c = take("SELECT 2");
    ok(a != b && a->text == b->text && a->text != c->text, "each Parse is a statement, one text is held once");
    is_int(all.bytes, 18, "and its bytes are counted once");
    statement_drop(&a);
    ok(a == NULL, "a dropped one is NULL");
    statement_drop(&b);
    is_int(all.bytes, 9, "the last reference frees the text");
    statement_drop(&c);
    is_int(all.by_tail.count, 0, "nothing is left");
    statement_drop(&c);
    ok(true, "dropping NULL does nothing");

    char name[STATEMENT_NAME];
    statement_name(&all, UINT64_MAX, name);
    ok(strncmp(name, all.prefix, strlen(all.prefix)) == 0 && strlen(name) == strlen(all.prefix) + 16, "a name");
    struct statement *bare = statement_new(&all, TEXT("S\0\0\0"), NULL, false),
                     *typed = statement_new(&all, TEXT("S\0\0\1\0\0\0\x17"), NULL, false);
    ok(bare->text != typed->text, "other parameter types make another text");
    ok(text_eq(statement_types(typed), TEXT("\0\1\0\0\0\x17")) && text_is(statement_query(typed), "S"), "which is read in two parts");
    char *text = mem_format("ERROR: prepared statement \"%s\" does not exist", name);
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

static void test_sameness(void)
{
    static const struct text none = {"\0\0", 2}, one = {"\0\1\0\0\0\x17", 6};
    struct statement *a = take("SELECT $1"), *b = take("SELECT $1"), *c = take("SELECT $1"), *d = take("SELECT $1");
    statement_described(a, one, 11);
    ok(a->is_known && !a->same, "the first that is described");
    statement_described(b, one, 11);
    ok(b->same == a, "the second is the same");
    statement_described(c, one, 13);
    ok(c->is_known && !c->same, "one of another shape is not");
    statement_described(d, none, 11);
    ok(!d->same, "nor one with other types");
    struct statement *again = statement_again(a), *changed = statement_again(a);
    ok(text_eq(statement_types(again), one), "prepared again it has the types that were told");
    statement_described(again, one, 11);
    statement_described(changed, one, 13);
    ok(again->same == a, "and is the same");
    ok(changed->same == c, "unless its table has changed");
    struct statement *mine = statement_apart(a), *theirs = take("SELECT $1");
    ok(mine->is_private && mine->is_known && mine->shape == 11, "one session's own");
    statement_drop(&a);
    statement_drop(&b);
    statement_drop(&again);
    statement_described(theirs, one, 11);
    ok(!theirs->same, "is nobody else's");
    struct statement *shared = statement_shared(mine, NULL);
    ok(shared == theirs, "it can be shared again");
    struct statement *now = take("SELECT 'now'::text, now()"), *call = take("SELECT now ()"), *known = take("SELECT known");
    ok(now->is_private, "what is read when it is parsed is not shared");
    ok(!call->is_private && !known->is_private, "a call is");
    struct statement *left[] = {c, d, changed, mine, theirs, shared, now, call, known};
    for (size_t i = 0; i < COUNT_OF(left); i++)
        statement_drop(&left[i]);
    is_int(all.by_tail.count, 0, "nothing is left");
}

static void test_shapes(void)
{
    static const char one[] = "\0\1id\0" "\0\0\x40\1\0\1" "\0\0\0\x17\0\4\xff\xff\xff\xff\0\0";
    char other[sizeof(one)];
    struct text t = {one, sizeof(one) - 1}, u = {other, sizeof(one) - 1};
    memcpy(other, one, sizeof(one));
    ok(statement_shape(t) && statement_shape(t) == statement_shape(u), "a shape");
    other[7] = 9;
    ok(statement_shape(t) == statement_shape(u), "does not say which table");
    other[14] = 0x19;
    ok(statement_shape(t) != statement_shape(u), "but the type");
    memcpy(other, one, sizeof(one));
    other[2] = 'x';
    ok(statement_shape(t) != statement_shape(u), "and the name");
    u.len--;
    ok(!statement_shape(u) && !statement_shape((struct text){one, 1}), "cut off it is none");
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
    names_clear(&names);
    ok(names_get(&names, TEXT("a")), "a Parse that was not answered came behind DEALLOCATE ALL");
    a->is_new = false;
    names_clear(&names);
    ok(!names_get(&names, TEXT("a")) && names_get(&names, TEXT("")), "DEALLOCATE ALL spares the unnamed one");
    is_int(a->refs, 1, "and gives the references back");
    names_free(&names);
    ok(!names_get(&names, TEXT("")), "the session's end does not");
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
    for (int i = 0; i < 3; i++)
        prepared_add(&p, st[i], 10 + (uint64_t)i);
    is_int(st[0]->refs, 2, "it holds a reference");
    is_int(prepared_number(&p, st[0]), 10, "the number is known");
    ok(!prepared_take_waste(&p), "and there was room");
    ok(!prepared_number(&p, st[3]) && prepared_number(&p, st[1]), "what it has");
    prepared_add(&p, st[3], 13);
    struct prepared_slot *out = prepared_take_waste(&p);
    ok(out && out->number == 12 && !prepared_number(&p, st[2]), "the least recently used goes first");
    prepared_put_waste(&p, out);
    ok(prepared_take_waste(&p) == out && !prepared_take_waste(&p), "once, or again when it could not be closed");
    prepared_slot_free(&out);
    prepared_become(&p, st[3], st[2]);
    ok(prepared_number(&p, st[2]) == 13 && !prepared_number(&p, st[3]), "one becomes another");
    prepared_become(&p, st[2], st[1]);
    out = prepared_take_waste(&p);
    ok(out && out->number == 13 && prepared_number(&p, st[1]) == 11, "or goes when that is there");
    prepared_slot_free(&out);
    prepared_remove(&p, 11);
    prepared_remove(&p, 11);
    ok(!prepared_number(&p, st[1]) && prepared_number(&p, st[0]), "one is removed");
    prepared_add(&p, st[1], 14);
    prepared_answered(&p, prepared_number(&p, st[0]));
    prepared_clear(&p);
    ok(!prepared_number(&p, st[0]) && prepared_number(&p, st[1]), "all are, but what is still to be answered");
    prepared_forget(&p);
    ok(!prepared_number(&p, st[1]) && list_is_empty(&p.lru), "or all");
    prepared_add(&p, st[2], 15);
    prepared_free(&p);
    for (int i = 0; i < 4; i++) {
        is_int(st[i]->refs, 1, "statement %d is only ours again", i);
        statement_drop(&st[i]);
    }
}

static void test_held(void)
{
    struct names names = {0};
    struct named *one = name("a", "SELECT 1"), *two = name("", "SELECT 2222222222222222222222222222222222222");
    (void)!names_set(&names, one);
    ok(names.held == names.bytes && names.held > 9, "what has a name is held");
    size_t first = names.held;
    (void)!names_set(&names, two);
    ok(names.bytes == first && names.held >= 2 * first + 20, "and the unnamed one, by the length of its text");
    named_drop(&one);
    named_drop(&two);
    size_t both = names.held;
    struct named *gone = names_unset(&names, TEXT("a"));
    ok(names.bytes == 0 && names.held == both, "one without a name is held while somebody refers to it");
    (void)!names_set(&names, gone);
    is_int(names.held, both, "bound again it counts once");
    named_drop(&gone);
    gone = names_unset(&names, TEXT("a"));
    named_drop(&gone);
    is_int(names.held, both - first, "and no more when it is gone");
    names_free(&names);
    is_int(names.held, 0, "nothing is held at the end");
}

static void test_kept(void)
{
    struct budget memory;
    struct kept kept = {0};
    struct prepared p, q;
    struct statement *st[4];
    char text[3001];
    budget_init(&memory, NULL, 4 * (2 * 3001 + 3 * KEPT_SLOT));
    kept_charge_to(&kept, &memory);
    prepared_init(&p, 100);
    prepared_init(&q, 100);
    p.kept = q.kept = &kept;
    for (int i = 0; i < 4; i++) {
        memset(text, 'a' + i, sizeof(text));
        text[3000] = '\0';
        st[i] = take(text);
    }
    prepared_add(&p, st[0], 10);
    prepared_answered(&p, 10);
    is_int(memory.kept, 3001 + KEPT_SLOT, "a text and its slot are kept");
    prepared_add(&q, st[0], 11);
    is_int(memory.kept, 3001 + 2 * KEPT_SLOT, "on another connection of the pool it is the same text");
    prepared_add(&p, st[1], 12);
    is_int(memory.kept, 2 * 3001 + 3 * KEPT_SLOT, "another one is another");
    prepared_add(&q, st[2], 13);
    ok(!prepared_number(&q, st[0]) && prepared_number(&p, st[0]) && prepared_number(&q, st[2]) == 13,
       "without room, a connection's own oldest goes; what it uses now stays");
    ok(q.unpaid == 1 && memory.kept == 2 * 3001 + 2 * KEPT_SLOT, "for which nobody pays");
    prepared_trim(&q);
    ok(!prepared_number(&q, st[2]) && q.unpaid == 0, "until it is given back");
    is_int(q.waste.count, 2, "both are to be closed on the server");
    prepared_trim(&p);
    ok(prepared_number(&p, st[0]) && prepared_number(&p, st[1]), "what is paid for stays");
    prepared_add(&p, st[3], 14);
    ok(!prepared_number(&p, st[0]) && !p.unpaid, "a connection makes room for its own");
    is_int(memory.kept, 2 * 3001 + 2 * KEPT_SLOT, "and no more is kept than before");
    struct statement *apart = statement_apart(st[1]);
    prepared_become(&p, st[1], apart);
    statement_drop(&apart);
    is_int(memory.kept, 2 * 3001 + 2 * KEPT_SLOT, "one that becomes another is the same text");
    prepared_remove(&p, 14);
    is_int(memory.kept, 3001 + KEPT_SLOT, "removed");
    prepared_shed(&p);
    is_int(memory.kept, 3001 + KEPT_SLOT, "what may be kept is");
    atomic_store(&memory.limit, 4 * 3000);
    prepared_shed(&p);
    is_int(memory.kept, 0, "until the limit is lowered");
    prepared_free(&p);
    prepared_free(&q);
    ok(memory.kept == 0 && memory.used == 0 && kept.bytes == 0, "nothing is kept at the end");
    kept_free(&kept);
    ok(!budget_is_held(&memory), "and nobody held");
    for (int i = 0; i < 4; i++)
        statement_drop(&st[i]);
}

static void test_execute(void)
{
    static const struct {
        const char *sql, *written, *name;
    } rows[] = {
        {"EXECUTE a", "a", "a"},
        {" /* x /* y */ */ execute\n-- z\n My_1$ (1, 'x')", "My_1$", "my_1$"},
        {"execute\"A b\"(1)", "\"A b\"", "A b"},
        {"EXECUTE \"a\"\"b\"", "\"a\"\"b\"", "a\"b"},
        {"EXECUTE a123456789b123456789c123456789d123456789e123456789f123456789xyz", "a123456789b123456789c123456789d123456789e123456789f123456789xyz",
         "a123456789b123456789c123456789d123456789e123456789f123456789xyz"},
        {"EXECUTE a123456789b123456789c123456789d123456789e123456789f123456789xyz1", NULL, NULL},
        {"EXECUTE", NULL, NULL},
        {"EXECUTE ", NULL, NULL},
        {"EXECUTES a", NULL, NULL},
        {"EXECUTE \"a", NULL, NULL},
        {"EXECUTE \"a\"\"", NULL, NULL},
        {"EXECUTE \"\"", NULL, NULL},
        {"EXECUTE U&\"a\"", NULL, NULL},
        {"EXPLAIN EXECUTE a", NULL, NULL},
        {"/* EXECUTE a", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct text written;
        char name[SQL_EXECUTE_NAME], *copy = mem_dup(rows[i].sql); /* a sanitizer sees its end */
        bool found = sql_execute_name((struct text){copy, strlen(copy)}, &written, name);
        ok(found == (rows[i].name != NULL) && (!found || (text_is(written, rows[i].written) && strcmp(name, rows[i].name) == 0)), "%s", rows[i].sql);
        mem_free(copy);
    }
}

int main(void)
{
    statements_init(&all);
    test_statements();
    test_sameness();
    test_shapes();
    test_names();
    test_prepared();
    test_held();
    test_kept();
    test_execute();
    statements_free(&all);
    return tap_done();
}
