/* Passwords of the database roles: both forms of the file, and faults that keep the secret.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "conf/inside.h"
#include "tap.h"
#include "upstream/credentials.h"

static char dir[] = "/tmp/postern-test-XXXXXX";
static struct conf_faults faults;

static void put(const char *name, const char *text, mode_t mode)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    unlink(path);
    FILE *f = fopen(path, "w");
    if (f) {
        fputs(text, f);
        fclose(f);
        chmod(path, mode);
    }
}

/* The credentials of cluster one from `a` and of cluster two from `b`. */
static struct credentials *load(const char *a, const char *b)
{
    char *text = mem_format("[listener main]\ntls = off\n[cluster one]\nhosts = a\n"
                            "credentials = %s/%s\n[cluster two]\nhosts = b\n"
                            "%scredentials = %s/%s\n[database *]\ncluster = one\n",
                            dir, a, b ? "" : ";", dir, b ? b : "");
    conf_faults_free(&faults);
    struct conf *conf = conf_load_text("x.ini", text_of(text), &faults);
    struct credentials *c = faults.count ? NULL : credentials_load(conf, &faults);
    conf_unref(conf);
    mem_free(text);
    return c;
}

static void test_userlist(void)
{
    put("list",
        "; a comment\n# another\n\n\"app\" \"sesame\"\n  \"o\"\"dd\"\t\"a\"\"b c\" # why\r\n"
        "\"spaces in\" \" x \"\n\"last\" \"#;\"",
        0640);
    struct credentials *c = load("list", NULL);
    ok(c != NULL, "a userlist");
    is_text(credentials_find(c, "one", "app"), "sesame", "a role");
    is_text(credentials_find(c, "one", "o\"dd"), "a\"b c", "doubled quotes");
    is_text(credentials_find(c, "one", "spaces in"), " x ", "spaces");
    is_text(credentials_find(c, "one", "last"), "#;", "the last line, without a newline");
    ok(!credentials_find(c, "one", "nobody"), "an unknown role");
    ok(!credentials_find(c, "two", "app"), "another cluster");
    ok(!credentials_find(c, "one", ""), "an empty role");
    char *longest = mem_new(1, 300);
    memset(longest, 'x', 299);
    ok(!credentials_find(c, "one", longest), "a very long role");
    mem_free(longest);
    const struct credentials *again = credentials_ref(c);
    credentials_unref(c);
    is_text(credentials_find(again, "one", "app"), "sesame", "lives with its last holder");
    credentials_unref(again);
    credentials_unref(NULL);
}

static void test_directory(void)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/roles", dir);
    mkdir(path, 0750);
    put("roles/app", "sesame\n", 0600);
    put("roles/crlf", "ses ame\r\n", 0600);
    put("roles/bare", "\"#x", 0600);
    put("roles/..data", "no\nrole", 0600);
    put("list", "\"app\" \"other\"\n", 0600);
    snprintf(path, sizeof(path), "%s/roles/sub", dir);
    mkdir(path, 0750);
    struct credentials *c = load("roles", "list");
    ok(c != NULL, "a directory and a userlist");
    if (!c)
        printf("# " TEXT_FMT "\n", TEXT_ARG(buf_text(&faults.text)));
    is_text(credentials_find(c, "one", "app"), "sesame", "a newline is dropped");
    is_text(credentials_find(c, "one", "crlf"), "ses ame", "and a carriage return before it");
    is_text(credentials_find(c, "one", "bare"), "\"#x", "what is in the file is the password");
    ok(!credentials_find(c, "one", "..data"), "dots are skipped");
    is_text(credentials_find(c, "two", "app"), "other", "each cluster has its own");
    credentials_unref(c);
}

static const struct {
    const char *text, *fault;
    unsigned line;
} refused[] = {
    {"\"a\" \"sesame\"\n\"a\" \"sesame2\"\n", "this role was given before", 2},
    {"app sesame\n", "allowed: \"role\" \"password\"", 1},
    {"\"a\"\n", "allowed: \"role\" \"password\"", 1},
    {"\"a\" \"sesame\n", "allowed: \"role\" \"password\"", 1},
    {"\"a\" \"sesame\" more\n", "allowed: \"role\" \"password\"", 1},
    {"\n\"a\" \"\"\n", "an empty password", 2},
    {"\"\" \"sesame\"\n", "an empty role", 1},
    {"\"a\" \"md5c62109bf4ac4ac5ef3a1d5e8f9b6b2f3\"\n", "a hash instead of the password", 1},
    {"\"a\" \"SCRAM-SHA-256$4096:c2VzYW1l$x:y\"\n", "a hash instead of the password", 1},
    {"\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggg\" \"sesame\"\n",
     "the role has more than 63 bytes", 1},
};

static void test_refused(void)
{
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        char want[256];
        put("list", refused[i].text, 0600);
        struct credentials *c = load("list", NULL);
        snprintf(want, sizeof(want), "x.ini:5: [cluster one] credentials: %s/list:%u: %s", dir,
                 refused[i].line, refused[i].fault);
        ok(!c && faults.count == 1 && text_starts(buf_text(&faults.text), want), "refused %zu: %s",
           i, refused[i].fault);
        ok(buf_size(&faults.text) &&
               !memmem(buf_front(&faults.text), buf_size(&faults.text), "sesame", 6),
           "and the password is not told");
        credentials_unref(c);
    }
    put("list", "\"a\" \"sesame\"\n", 0644);
    ok(!load("list", NULL) && memmem(faults.text.at, faults.text.len, "others", 6),
       "readable by others");
    ok(!load("nowhere", "list") && faults.count == 2, "no such file, and the other one's fault");
    put("roles/two", "a\nb\n", 0600);
    put("roles/nothing", "\n", 0600);
    ok(!load("roles", NULL) && faults.count == 2, "two lines, and none");
}

int main(void)
{
    char command[64];
    conf_faults_init(&faults);
    if (!mkdtemp(dir))
        return 99;
    test_userlist();
    test_directory();
    test_refused();
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ok(system(command) == 0, "cleaned up");
    conf_faults_free(&faults);
    return tap_done();
}
