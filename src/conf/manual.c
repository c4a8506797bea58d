/* The example file and the manual page, written from the table of settings, so that neither
 * can say anything that the parser does not do.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conf/values.h"

#include <string.h>

enum { EXAMPLE_WIDTH = 92 };

struct intro {
    const char *header; /* as the example writes it */
    const char *text;
};

static const struct intro intros[CONF_KINDS] = {
    [CONF_KIND_postern] = {"postern", "The process as a whole."},
    [CONF_KIND_redis] = {"redis", "Where a fleet of gateways shares the limits of its tenants. "
                                  "Without a url they are kept in memory, for one instance."},
    [CONF_KIND_listener] = {"listener main",
                            "Where clients connect. At least one; each has a name of its own."},
    [CONF_KIND_issuer] = {"issuer main", "Who may sign the tokens that clients present as their "
                                         "password; one section for each."},
    [CONF_KIND_plan] = {"plan standard", "The limits of the tenants on this plan."},
    [CONF_KIND_tenant] = {"tenant *", "What the users of a tenant may reach. [tenant acme] is for "
                                      "acme alone, [tenant *] for all that have no section of "
                                      "their own."},
    [CONF_KIND_cluster] = {"cluster main", "A YugabyteDB cluster, or one PostgreSQL server."},
    [CONF_KIND_database] = {"database *",
                            "What clients may name as the database, and the pools behind it. "
                            "[database *] serves any name that has no section of its own."},
};

static const char include_help[] =
    "A file that is read as well, or a directory, whose *.ini files are read in order of name. "
    "May be set several times. Included files may include others, 4 deep.";

/* What the example sets, because a first try needs it; values that fit together. */
static const struct {
    enum conf_kind kind;
    const char *key, *value;
} example_values[] = {
    {CONF_KIND_listener, "tls_cert", "server.crt"},
    {CONF_KIND_listener, "tls_key", "server.key"},
    {CONF_KIND_issuer, "issuer", "https://id.example.org"},
    {CONF_KIND_issuer, "audience", "postern"},
    {CONF_KIND_issuer, "jwks_file", "jwks.json"},
    {CONF_KIND_tenant, "plan", "standard"},
    {CONF_KIND_cluster, "hosts", "yb-1.example.org, yb-2.example.org, yb-3.example.org:5433"},
    {CONF_KIND_cluster, "credentials", "userlist.txt"},
    {CONF_KIND_database, "cluster", "main"},
};

static const char *example_value(const struct conf_setting *row)
{
    for (size_t i = 0; i < COUNT_OF(example_values); i++)
        if (example_values[i].kind == row->kind && strcmp(example_values[i].key, row->key) == 0)
            return example_values[i].value;
    return NULL;
}

/* "# " before each line, broken between words. */
static bool put_comment(struct buf *out, const char *text)
{
    struct text rest = text_of(text), word;
    size_t column = 0;
    bool ok = true;
    while (ok && text_split(&rest, ' ', &word)) {
        if (column && column + 1 + word.len > EXAMPLE_WIDTH) {
            ok = buf_put(out, "\n", 1);
            column = 0;
        }
        ok = ok && buf_put_text(out, column ? " " : "# ") && buf_put(out, word.at, word.len);
        column += (column ? 1 : 2) + word.len;
    }
    return ok && buf_put(out, "\n", 1);
}

static bool put_example_setting(struct buf *out, const struct conf_setting *row)
{
    struct buf allowed;
    const char *value = example_value(row);
    CHECK(value || row->def);
    buf_init(&allowed, 1024);
    bool ok = buf_put_text(&allowed, "Allowed: ");
    conf_value_allowed(row, &allowed);
    ok = ok && buf_printf(&allowed, "%s", row->reloads ? "." : ". A change needs a restart.") &&
         buf_put(&allowed, "", 1) && put_comment(out, row->help) && put_comment(out, allowed.at);
    if (value)
        ok = ok && buf_printf(out, "%s = %s\n\n", row->key, value);
    else
        ok = ok && buf_printf(out, ";%s =%s%s\n\n", row->key, row->def[0] ? " " : "", row->def);
    buf_free(&allowed);
    return ok;
}

bool conf_write_example(struct buf *out)
{
    const struct conf_setting *row;
    enum conf_kind kind = CONF_KINDS;
    bool ok = put_comment(out, "Postern's configuration: every setting there is. Lines that begin "
                               "with ; show the defaults.") &&
              put_comment(out, "A value goes on in the next line when that is indented. A line has "
                               "at most 197 bytes. \" ;\" starts a comment. Paths start from the "
                               "directory of the file that sets them. See postern.ini(5).");
    for (size_t i = 0; ok && (row = conf_setting_at(i)); i++) {
        if (row->kind != kind) {
            kind = row->kind;
            ok = buf_put_text(out, "\n") && put_comment(out, intros[kind].text) &&
                 buf_printf(out, "[%s]\n\n", intros[kind].header);
            if (kind == CONF_KIND_postern)
                ok = ok && put_comment(out, include_help) &&
                     buf_put_text(out, "# include = conf.d\n\n");
        }
        ok = ok && put_example_setting(out, row);
    }
    if (ok && out->len)
        out->len--; /* no empty line at the end */
    return ok;
}

/* ---- the manual page ---- */

/* Text as groff prints it: no dash, quote, backslash or dot of ours is a request of its own. */
static bool put_roff(struct buf *out, const char *text)
{
    bool ok = true;
    for (const char *c = text; ok && *c; c++) {
        bool starts = out->len == 0 || out->at[out->len - 1] == '\n';
        if (starts && (*c == '.' || *c == '\''))
            ok = buf_put_text(out, "\\&");
        if (*c == '\\')
            ok = ok && buf_put_text(out, "\\e");
        else if (*c == '-')
            ok = ok && buf_put_text(out, "\\-");
        else if (*c == '"')
            ok = ok && buf_put_text(out, "\\(dq");
        else if (*c == '\'')
            ok = ok && buf_put_text(out, "\\(aq");
        else if (*c == '~' || *c == '^' || *c == '`')
            ok = ok && buf_put_text(out, *c == '~' ? "\\(ti" : *c == '^' ? "\\(ha" : "\\(ga");
        else if (*c == ' ' && c > text && c[-1] == '.')
            ok = ok && buf_put(out, "\n", 1); /* groff wants a sentence a line */
        else
            ok = ok && buf_put(out, c, 1);
    }
    return ok;
}

static bool put_manual_setting(struct buf *out, const struct conf_setting *row)
{
    struct buf allowed;
    buf_init(&allowed, 1024);
    conf_value_allowed(row, &allowed);
    bool ok = buf_put(&allowed, "", 1) && buf_printf(out, ".TP\n.B %s\n", row->key) &&
              put_roff(out, row->help) && buf_put_text(out, "\nValue: ") &&
              put_roff(out, allowed.at) && buf_put_text(out, ".\n");
    if (!row->def)
        ok = ok && buf_put_text(out, "Must be set.\n");
    else if (row->def[0])
        ok = ok && buf_put_text(out, "Default: ") && put_roff(out, row->def) &&
             buf_put_text(out, ".\n");
    else
        ok = ok && buf_put_text(out, "Default: empty.\n");
    if (!row->reloads)
        ok = ok && buf_put_text(out, "A change needs a restart.\n");
    buf_free(&allowed);
    return ok;
}

static const char manual_head[] =
    ".\\\" Written from the table of settings by conf_write_manual(); edit that.\n"
    ".TH POSTERN.INI 5 \"\" postern \"File formats\"\n"
    ".SH NAME\n"
    "postern.ini \\- configuration of the PostgreSQL gateway postern\n"
    ".SH DESCRIPTION\n"
    "The file consists of sections, each with a header in brackets, a kind and for most kinds\n"
    "a name, and of lines\n"
    ".IR key \" = \" value\n"
    "in them.\n"
    "Lines that begin with # or ; are comments, and so is what follows a ; behind a space.\n"
    "A line has at most 197 bytes; an indented line continues the value above it:\n"
    "the pieces of a list are joined with a comma, those of any other value with a space.\n"
    "Each key begins at the start of its line.\n"
    ".PP\n"
    "Names have 1 to 63 letters, digits, dots, dashes and underscores; the name * makes a\n"
    "tenant or a database the one for all that have no section of their own.\n"
    "No section and no key may be given twice.\n"
    "The sections [postern] and [redis] may go on in an included file.\n"
    "Relative paths start from the directory of the file that sets them.\n"
    "Times take a unit (us, ms, s, min, h, d), and so do sizes (B, kB, MB, GB; a kB is 1024 B).\n"
    ".PP\n"
    "The file is read at the start and at SIGHUP.\n"
    "When anything in it is wrong, every fault is reported with file and line, and the gateway\n"
    "keeps all of its old configuration.\n"
    ".B postern \\-\\-check\n"
    "reports the faults and does nothing else.\n";

static const char manual_tail[] = ".SH EXAMPLE\n"
                                  ".nf\n"
                                  "[listener main]\n"
                                  "tls_cert = server.crt\n"
                                  "tls_key = server.key\n"
                                  "\n"
                                  "[issuer main]\n"
                                  "issuer = https://id.example.org\n"
                                  "audience = postern\n"
                                  "jwks_file = jwks.json\n"
                                  "\n"
                                  "[plan standard]\n"
                                  "max_connections = 200\n"
                                  "queries_per_second = 1000\n"
                                  "\n"
                                  "[tenant *]\n"
                                  "database_role = t_${tenant}_${role}\n"
                                  "plan = standard\n"
                                  "\n"
                                  "[cluster main]\n"
                                  "hosts = yb\\-1.example.org, yb\\-2.example.org\n"
                                  "credentials = userlist.txt\n"
                                  "\n"
                                  "[database *]\n"
                                  "cluster = main\n"
                                  ".fi\n"
                                  ".SH SEE ALSO\n"
                                  ".BR postern (1)\n";

bool conf_write_manual(struct buf *out)
{
    const struct conf_setting *row;
    enum conf_kind kind = CONF_KINDS;
    bool ok = buf_put_text(out, manual_head);
    for (size_t i = 0; ok && (row = conf_setting_at(i)); i++) {
        if (row->kind != kind) {
            kind = row->kind;
            const struct conf_kind_row *k = conf_kind_row(kind);
            ok = buf_printf(out, ".SH \"SECTION [%s%s]\"\n", k->word, k->has_name ? " NAME" : "") &&
                 put_roff(out, intros[kind].text) && buf_put_text(out, "\n");
            if (kind == CONF_KIND_postern)
                ok = ok && buf_put_text(out, ".TP\n.B include\n") && put_roff(out, include_help) &&
                     buf_put_text(out, "\nDefault: empty.\n");
        }
        ok = ok && put_manual_setting(out, row);
    }
    return ok && buf_put_text(out, manual_tail);
}
