/* The users file: what it gives, and faults by line that tell no verifier.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "conf/inside.h"
#include "gate/users.h"
#include "tap.h"

static char path[] = "/tmp/postern-test-XXXXXX";
static char verifier[256];
static struct conf_faults faults;

static const struct users *present; /* what is in force */
static const char *salt_key = "";   /* the file's path */

static struct users *load(const char *lines, const char *admins)
{
    FILE *f = fopen(path, "w");
    if (f) {
        fputs(lines, f);
        fclose(f);
    }
    char *text = mem_format("[postern]\nusers_file = %s\nadmin_users = %s\nsalt_key_file = %s\n[listener main]\n"
                            "tls = off\nscram_users = batch, pla*, a\n[issuer one]\nissuer = i\naudience = a\njwks_file = k\n[cluster one]\nhosts = a\n[database *]\ncluster = one\n"
                            "[tenant acme]\nroles = rw, ro\n[plan gold]\n",
                            lines ? path : "", admins, salt_key);
    conf_faults_free(&faults);
    struct conf *conf = conf_load_text("x.ini", text_of(text), &faults);
    struct users *u = faults.count ? NULL : users_load(conf, present, &faults);
    conf_unref(conf);
    mem_free(text);
    return u;
}

static bool told(const char *what)
{
    bool found = buf_size(&faults.text) &&
                 memmem(buf_front(&faults.text), buf_size(&faults.text), what, strlen(what));
    if (!found)
        printf("# got: " TEXT_FMT, TEXT_ARG(buf_text(&faults.text)));
    return found;
}

static void test_good(void)
{
    struct scram_verifier expected;
    char *lines = mem_format("# users\n\"batch\" \"%s\" acme rw,ro gold\n"
                             "plain\t%s \"acme\" owner,ro # no plan\r\n\n\"admin\" \"%s\" - -\n",
                             verifier, verifier, verifier);
    struct users *all = load(lines, "admin");
    ok(all != NULL && faults.count == 0, "a good file");
    const struct user *u = users_find(all, TEXT("batch"));
    ok(u && !u->is_admin, "a user");
    is_text(u->identity.tenant, "acme", "its tenant");
    is_text(u->identity.subject, "batch", "its subject");
    is_text(u->identity.plan, "gold", "its plan");
    is_text(u->identity.issuer, "", "no issuer");
    ok(u->identity.role_count == 2 && strcmp(u->identity.role[1], "ro") == 0, "its roles");
    ok(u->identity.expires == 0, "it never expires");
    ok(scram_verifier_parse(text_of(verifier), &expected) &&
           memcmp(&expected, &u->verifier, sizeof(expected)) == 0,
       "its verifier");
    u = users_find(all, TEXT("plain"));
    ok(u && u->identity.plan[0] == '\0' && u->identity.role_count == 2, "without quotes and plan");
    u = users_find(all, TEXT("admin"));
    ok(u && u->is_admin && u->identity.tenant[0] == '\0' && u->identity.role_count == 0,
       "an administrator");
    ok(!users_find(all, TEXT("nobody")) && !users_find(all, TEXT("")), "nobody else");
    const struct users *again = users_ref(all);
    users_unref(all);
    ok(users_find(again, TEXT("batch")), "lives with its last holder");
    users_unref(again);
    users_unref(NULL);
    mem_free(lines);
    all = load("", "");
    ok(all && !users_find(all, TEXT("x")), "an empty file");
    users_unref(all);
}

/* %s is a good verifier. */
static const struct {
    const char *line, *fault;
} refused[] = {
    {"\"a\" \"%s\" acme rw\n\"a\" \"%s\" acme rw\n", ":2: user a was given before"},
    {"\"a\" \"sesame\" acme rw\n", ":1: user a: the second word is no SCRAM-SHA-256 verifier; allowed: what `postern scram` makes of a password"},
    {"\"a\"\n", ":1: user a: the second word is no SCRAM-SHA-256 verifier"},
    {"\"a\" \"%s\"\n", ":1: user a: the tenant is missing; - is for administrators"},
    {"\"a\" \"%s\" globex rw\n",
     ":1: user a: there is no section [tenant globex] and no [tenant *]"},
    {"\"a\" \"%s\" a/b rw\n", ":1: user a: the tenant is no valid name"},
    {"\"a\" \"%s\" acme\n", ":1: user a: the roles are missing or too long"},
    {"\"a\" \"%s\" acme -\n", ":1: user a: the roles are missing or too long"},
    {"\"a\" \"%s\" acme rw,,ro\n", ":1: user a: a role is no valid name"},
    {"\"a\" \"%s\" acme rw, ro\n", ":1: user a: a role is no valid name"},
    {"\"a\" \"%s\" - rw\n", ":1: user a: without a tenant the roles must be -"},
    {"\"a\" \"%s\" acme rw lead\n", ":1: user a: there is no section [plan lead]"},
    {"\"b\" \"%s\" acme rw\n", ":1: user b: no listener asks that name for SCRAM-SHA-256; allowed: a name in scram_users of"},
    {"\"a\" \"%s\" acme owner\n", ":1: user a: found role owner; [tenant acme] does not allow it"},
    {"\"a\" \"%s\" acme owner,admin\n", ":1: user a: found role owner and others; [tenant acme] does not allow it"},
    {"\"a\" \"%s\" acme rw gold x\n", ":1: user a: text behind the plan"},
    {"\"\" \"%s\" acme rw\n", ":1: the user's name is empty or holds a control character"},
    {"\"a \"%s\" acme rw\n", ":1: allowed: \"user\" \"SCRAM-SHA-256$...\" tenant roles [plan]"},
    {"\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg\" \"%s\" acme rw\n",
     ":1: the user's name has more than 63 bytes"},
};

/* The line with each %s replaced. */
static char *fill(const char *line)
{
    struct buf b;
    buf_init(&b, 4096);
    for (const char *c = line; *c; c++) {
        bool mark = c[0] == '%' && c[1] == 's';
        if (!(mark ? buf_put_text(&b, verifier) : buf_put(&b, c, 1)))
            break;
        c += mark;
    }
    char *out = mem_dup_n(b.at, b.len);
    buf_free(&b);
    return out;
}

static void test_refused(void)
{
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        char *lines = fill(refused[i].line);
        struct users *u = load(lines, "");
        ok(!u && faults.count == 1 && told(refused[i].fault), "refused %zu: %s", i,
           refused[i].fault);
        ok(told("x.ini:2: [postern] users_file: ") &&
               !memmem(faults.text.at, faults.text.len, "sesame", 6) &&
               !memmem(faults.text.at, faults.text.len, verifier + 20, 10),
           "with its place, without its secret");
        mem_free(lines);
    }
    struct buf many;
    buf_init(&many, 4096);
    buf_printf(&many, "\"a\" \"%s\" acme r0", verifier);
    for (int i = 1; i < 33; i++)
        buf_printf(&many, ",r%d", i);
    ok(buf_put(&many, "\n", 2) && !load(many.at, "") && told("more than 32 roles"), "33 roles");
    buf_free(&many);
    ok(!load("", "admin") && told("x.ini:3: [postern] admin_users: found \"admin\"; users_file "
                                  "has no such user"),
       "an administrator that is nobody");
    chmod(path, 0644);
    ok(!load("", "") && told("may be read or written by others"), "readable by others");
    unlink(path);
    mkdir(path, 0700);
    ok(!load("", "") && told("cannot be read"), "a directory");
    rmdir(path);
}

/* ---- salts of those who are not there ---- */

enum { SALT = 16 };

static char *line_of(const char *name, char password)
{
    struct scram_verifier v;
    char out[256];
    CHECK(scram_verifier_make((struct text){&password, 1}, (const uint8_t *)"0123456789abcdef", SALT, 4096, &v));
    scram_verifier_text(&v, out, sizeof(out));
    return mem_format("\"%s\" \"%s\" acme rw\n", name, out);
}

/* Loads what follows on *now, which it replaces, and gives the salt of somebody who is in neither. */
static void follow(struct users **now, const char *lines, uint8_t salt[SALT])
{
    struct scram_verifier v;
    present = *now;
    struct users *next = load(lines, "");
    present = NULL;
    CHECK(next);
    users_unref(*now);
    *now = next;
    users_fake(next, TEXT("nobody"), &v);
    CHECK(v.salt_len == SALT && v.iterations == 4096);
    memcpy(salt, v.salt, SALT);
}

static void write_key(const char *at, const char *key)
{
    FILE *f = fopen(at, "w");
    CHECK(f && fputs(key, f) >= 0 && fclose(f) == 0 && chmod(at, 0600) == 0);
}

static void test_salts(void)
{
    char *a = line_of("a", '1'), *other = line_of("a", '2');
    struct users *one = NULL, *two = NULL;
    uint8_t first[SALT], salt[SALT], drawn[SALT];
    follow(&one, a, first);
    follow(&two, a, salt);
    ok(memcmp(first, salt, SALT) == 0, "two that start with the same first user");
    follow(&one, other, salt);
    ok(memcmp(first, salt, SALT) == 0, "a reload with another first user changes nothing");
    follow(&one, "", salt);
    ok(memcmp(first, salt, SALT) == 0, "nor does one with none");
    follow(&one, other, salt);
    ok(memcmp(first, salt, SALT) == 0, "nor the next");
    users_unref(two);
    two = NULL;
    follow(&two, other, salt);
    ok(memcmp(first, salt, SALT) != 0, "a start does: see salt_key_file");
    users_unref(two);
    two = NULL;
    follow(&two, "", drawn);
    follow(&two, "", salt);
    ok(memcmp(drawn, salt, SALT) == 0, "without any user it stays too");
    follow(&two, a, salt);
    ok(memcmp(first, salt, SALT) == 0, "until there is one");
    users_unref(one);
    users_unref(two);
    mem_free(a);
    mem_free(other);
}

static void test_salt_key_file(void)
{
    char *a = line_of("a", '1'), *other = line_of("a", '2'), *key = mem_format("%s.key", path);
    struct users *one = NULL, *two = NULL;
    uint8_t first[SALT], salt[SALT];
    salt_key = key;
    write_key(key, "0123456789abcdef0123456789abcdef");
    follow(&one, a, first);
    follow(&two, other, salt);
    ok(memcmp(first, salt, SALT) == 0, "one file: the same at every gate, whoever is the first user");
    salt_key = "";
    follow(&two, a, salt);
    ok(memcmp(first, salt, SALT) == 0, "a reload without the file keeps it");
    salt_key = key;
    write_key(key, "0123456789abcdef0123456789abcdeF");
    follow(&two, a, salt);
    ok(memcmp(first, salt, SALT) != 0, "another file, other salts");
    write_key(key, "0123456789abcdef0123456789abcde");
    ok(!load(a, "") && told("[postern] salt_key_file: ") && told(".key has 31 bytes; allowed: 32 to 4096, at random"), "too short");
    write_key(key, "0123456789abcdef0123456789abcdef");
    chmod(key, 0644);
    ok(!load(a, "") && told("[postern] salt_key_file: ") && told("may be read or written by others"), "others may read it");
    unlink(key);
    ok(!load(a, "") && told("cannot be read"), "it is not there");
    salt_key = "";
    users_unref(one);
    users_unref(two);
    mem_free(a);
    mem_free(other);
    mem_free(key);
}

int main(void)
{
    struct scram_verifier v;
    conf_faults_init(&faults);
    int fd = mkstemp(path);
    if (fd < 0 ||
        !scram_verifier_make(TEXT("sesame"), (const uint8_t *)"0123456789abcdef", 16, 4096, &v))
        return 99;
    close(fd);
    scram_verifier_text(&v, verifier, sizeof(verifier));
    test_good();
    test_salts();
    test_salt_key_file();
    test_refused();
    conf_faults_free(&faults);
    return tap_done();
}
