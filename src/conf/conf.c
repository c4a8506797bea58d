/* The configuration as an object: from sections of entries to typed, immutable sections.
 *
 * Every fault of every file is collected before anything is refused, so that an operator
 * mends a file once. How it goes: reader.c splits, this file sets defaults and values,
 * check.c looks at what belongs together, unused.c at what has no effect.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conf/conf.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "conf/inside.h"

enum { FAULTS_MAX = 1 << 20, FAULT_LINE = 2048, FOUND_MAX = 80, SHOWN_MAX = 4 * CONF_VALUE_MAX };

/* ---- faults ---- */

void conf_faults_init(struct conf_faults *f)
{
    buf_init(&f->text, FAULTS_MAX);
    buf_init(&f->advice, FAULTS_MAX);
    f->count = f->advice_count = 0;
}

void conf_faults_free(struct conf_faults *f)
{
    buf_free(&f->text);
    buf_free(&f->advice);
    f->count = f->advice_count = 0;
}

PRINTF_LIKE(6, 0)
static void put_line(struct buf *to, const char *file, unsigned line, const char *section,
                     const char *key, const char *fmt, va_list ap)
{
    char place[FAULT_LINE], said[FAULT_LINE];
    char number[16] = "";
    size_t from = to->len;
    vsnprintf(said, sizeof(said), fmt, ap);
    if (line)
        snprintf(number, sizeof(number), ":%u", line);
    snprintf(place, sizeof(place), "%s%s%s%s%s%s%s%s", file ? file : "", number, file ? ": " : "",
             section ? "[" : "", section ? section : "", section ? "]" : "", key ? " " : "",
             key ? key : "");
    /* What a file says may not drive the operator's terminal; and past a megabyte of faults they
     * are only counted. */
    if (!buf_put_shown(to, text_of(place)) || !buf_put_text(to, section || key ? ": " : "") ||
        !buf_put_shown(to, text_of(said)) || !buf_put_text(to, "\n"))
        to->len = from;
}

void conf_fault_va(struct conf_faults *f, const char *file, unsigned line, const char *section,
                   const char *key, const char *fmt, va_list ap)
{
    f->count++;
    put_line(&f->text, file, line, section, key, fmt, ap);
}

void conf_fault_at(struct conf_faults *f, const char *file, unsigned line, const char *section,
                   const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    conf_fault_va(f, file, line, section, key, fmt, ap);
    va_end(ap);
}

static const struct conf_written *written_of(const struct conf *c, const struct conf_section *at)
{
    if (!c || !at)
        return NULL;
    return map_get(&conf_inside(c)->by_place, (struct text){(const char *)&at, sizeof(at)});
}

static const struct conf_entry *entry_of(const struct conf_written *w, const char *key)
{
    for (size_t i = 0; w && key && i < w->entry_count; i++)
        if (strcmp(w->entries[i].row->key, key) == 0)
            return &w->entries[i];
    return NULL;
}

bool conf_is_set(const struct conf *c, const struct conf_section *at, const char *key)
{
    return entry_of(written_of(c, at), key) != NULL;
}

/* Where a key of a section is set. */
PRINTF_LIKE(5, 0)
static void put_about(struct buf *to, const struct conf *c, const struct conf_section *at,
                      const char *key, const char *fmt, va_list ap)
{
    const struct conf_written *w = written_of(c, at);
    const char *file = at ? at->file : NULL, *label = w ? w->label : NULL;
    unsigned line = at ? at->line : 0;
    if (!w && c && at)
        label = at == &c->postern.at ? "postern" : at == &c->redis.at ? "redis" : at->name;
    const struct conf_entry *e = entry_of(w, key);
    if (e) {
        file = e->file->name;
        line = e->line;
    }
    put_line(to, file, line, label, key, fmt, ap);
}

void conf_fault(struct conf_faults *f, const struct conf *c, const struct conf_section *at,
                const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    f->count++;
    put_about(&f->text, c, at, key, fmt, ap);
    va_end(ap);
}

void conf_advise(struct conf_faults *f, const struct conf *c, const struct conf_section *at,
                 const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    f->advice_count++;
    put_about(&f->advice, c, at, key, fmt, ap);
    va_end(ap);
}

/* ---- sections ---- */

/* Everything at its default, nothing of it NULL. */
static void section_init(struct conf_section *at, enum conf_kind kind, const char *name)
{
    const struct conf_setting *row;
    struct text bad;
    at->name = mem_dup(name);
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        if (row->kind != kind)
            continue;
        conf_value_clear(row, at);
        CHECK(!row->def || conf_value_set(row, at, text_of(row->def), NULL, &bad));
    }
}

static void section_release(struct conf_section *at, enum conf_kind kind)
{
    const struct conf_setting *row;
    for (size_t i = 0; (row = conf_setting_at(i)); i++)
        if (row->kind == kind)
            conf_value_free(row, at);
    mem_free(at->name);
}

/* What is wrong with a list but its parts. */
static const char *list_note(const struct conf_setting *row, struct text bad)
{
    bool after_comma = true, empty = false;
    if (!conf_value_is_list(row) || bad.len == 0)
        return "";
    for (size_t i = 0; i < bad.len; i++) {
        empty = empty || (bad.at[i] == ',' && after_comma);
        after_comma = bad.at[i] == ',' || (after_comma && (bad.at[i] == ' ' || bad.at[i] == '\t'));
    }
    if (empty || after_comma)
        return after_comma ? ": nothing stands behind the last comma" : ": nothing stands between two commas";
    return conf_value_is_quoted(bad) ? ": the quotes would be part of the name" : "";
}

/* A number sign behind a blank: meant as a comment, it is a part of the value. */
static bool has_number_sign(struct text value)
{
    for (size_t i = 1; i < value.len; i++)
        if (value.at[i] == '#' && (value.at[i - 1] == ' ' || value.at[i - 1] == '\t'))
            return true;
    return false;
}

static const char comment_note[] = "; a comment behind a value begins with \" ;\", not with #";

static void bad_value(struct conf_faults *faults, const struct conf_written *w,
                      const struct conf_entry *e, struct text bad)
{
    struct buf allowed;
    buf_init(&allowed, 1024);
    conf_value_allowed(e->row, &allowed);
    conf_fault_at(faults, e->file->name, e->line, w->label, e->row->key,
                  "found \"%.*s%s\"%s; allowed: " TEXT_FMT "%s%s",
                  (int)(bad.len < FOUND_MAX ? bad.len : FOUND_MAX), bad.at,
                  bad.len > FOUND_MAX ? "..." : "", list_note(e->row, bad), TEXT_ARG(buf_text(&allowed)),
                  conf_value_is_list(e->row) && conf_value_is_quoted(bad) ? ", without quotes" : "",
                  has_number_sign(buf_text(&e->value)) ? comment_note : "");
    buf_free(&allowed);
}

static void set_values(const struct conf *c, const struct conf_written *w, struct conf_faults *faults)
{
    const struct conf_setting *row;
    bool is_set[128] = {false};
    struct text bad;
    for (size_t i = 0; i < w->entry_count; i++) {
        const struct conf_entry *e = &w->entries[i];
        if (!conf_value_set(e->row, w->made, buf_text(&e->value), e->file->dir, &bad))
            bad_value(faults, w, e, bad);
        else if (has_number_sign(buf_text(&e->value)))
            conf_advise(faults, c, w->made, e->row->key, "found \"%.*s\", and all of it is the value%s",
                        (int)(e->value.len < FOUND_MAX ? e->value.len : FOUND_MAX), e->value.at, comment_note);
    }
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        CHECK(i < COUNT_OF(is_set));
        for (size_t k = 0; row->kind == w->kind && k < w->entry_count; k++)
            is_set[i] |= w->entries[k].row == row;
        if (row->kind == w->kind && !row->def && !is_set[i])
            conf_fault_at(faults, w->file->name, w->line, w->label, row->key,
                          "missing: this section needs it");
    }
}

static struct conf_section ***array_of(struct conf *c, const struct conf_kind_row *kind)
{
    return (struct conf_section ***)((char *)c + kind->array_offset);
}

static size_t *count_of(struct conf *c, const struct conf_kind_row *kind)
{
    return (size_t *)((char *)c + kind->count_offset);
}

static void make_section(struct conf *c, struct conf_written *w, struct conf_faults *faults)
{
    const struct conf_kind_row *kind = conf_kind_row(w->kind);
    if (w->kind == CONF_KIND_postern)
        w->made = &c->postern.at;
    else if (w->kind == CONF_KIND_redis)
        w->made = &c->redis.at;
    else {
        size_t *count = count_of(c, kind);
        w->made = mem_new(1, kind->size);
        section_init(w->made, w->kind, w->label + strlen(kind->word) + 1);
        (*array_of(c, kind))[(*count)++] = w->made;
    }
    w->made->file = w->file->name;
    w->made->line = w->line;
    map_put(&conf_inside(c)->by_place, (struct text){(const char *)&w->made, sizeof(w->made)}, w);
    set_values(c, w, faults);
}

static void conf_destroy(struct snapshot *s)
{
    struct conf *c = CONTAINER_OF(s, struct conf, snapshot);
    struct conf_inside *in = c->inside;
    section_release(&c->postern.at, CONF_KIND_postern);
    section_release(&c->redis.at, CONF_KIND_redis);
    for (size_t i = 0; i < in->section_count; i++) {
        struct conf_written *w = in->sections[i];
        if (conf_kind_row(w->kind)->has_name && w->made) {
            section_release(w->made, w->kind);
            mem_free(w->made);
        }
        for (size_t k = 0; k < w->entry_count; k++)
            buf_free(&w->entries[k].value);
        mem_free(w->entries);
        mem_free(w->label);
        mem_free(w);
    }
    for (unsigned k = 0; k < CONF_KINDS; k++)
        if (conf_kind_row(k)->has_name)
            mem_free(*array_of(c, conf_kind_row(k)));
    for (size_t i = 0; i < in->file_count; i++) {
        mem_free(in->files[i]->name);
        mem_free(in->files[i]->dir);
        mem_free(in->files[i]);
    }
    mem_free(in->files);
    mem_free(in->sections);
    map_free(&in->by_label);
    map_free(&in->by_place);
    mem_free(in);
    mem_free(c);
}

/* ---- loading ---- */

static struct conf *conf_new(void)
{
    struct conf *c = NEW(struct conf);
    snapshot_init(&c->snapshot, conf_destroy);
    c->inside = NEW(struct conf_inside);
    section_init(&c->postern.at, CONF_KIND_postern, "");
    section_init(&c->redis.at, CONF_KIND_redis, "");
    return c;
}

static void build(struct conf *c, struct conf_faults *faults)
{
    struct conf_inside *in = c->inside;
    c->postern.at.file = c->redis.at.file = in->files[0]->name;
    for (unsigned k = 0; k < CONF_KINDS; k++)
        if (conf_kind_row(k)->has_name)
            *array_of(c, conf_kind_row(k)) = mem_new(in->section_count, sizeof(void *));
    for (size_t i = 0; i < in->section_count; i++)
        make_section(c, in->sections[i], faults);
    conf_check(c, faults);
}

struct conf *conf_load(const char *path, struct conf_faults *faults)
{
    struct conf *c = conf_new();
    if (!conf_read_file(c->inside, path, faults)) {
        conf_unref(c);
        return NULL;
    }
    build(c, faults);
    return c;
}

struct conf *conf_load_text(const char *name, struct text text, struct conf_faults *faults)
{
    struct conf *c = conf_new();
    conf_read_text(c->inside, name, text, faults);
    build(c, faults);
    return c;
}

/* ---- looking things up ---- */

const char *conf_file_name(const struct conf *c, size_t i)
{
    const struct conf_inside *in = c->inside;
    return i < in->file_count ? in->files[i]->name : NULL;
}

static struct conf_section *named(const struct conf *c, enum conf_kind kind, struct text name)
{
    char label[CONF_LABEL];
    if (name.len == 0 || name.len > CONF_NAME_MAX)
        return NULL;
    int n = snprintf(label, sizeof(label), "%s ", conf_kind_row(kind)->word);
    memcpy(label + n, name.at, name.len);
    struct conf_written *w =
        map_get(&conf_inside(c)->by_label, (struct text){label, (size_t)n + name.len});
    return w ? w->made : NULL;
}

const struct conf_tenant *conf_tenant_for(const struct conf *c, struct text name)
{
    struct conf_section *at = named(c, CONF_KIND_tenant, name);
    return (struct conf_tenant *)(at ? at : named(c, CONF_KIND_tenant, TEXT("*")));
}

bool conf_is_carried_name(struct text name)
{
    if (name.len == 0 || name.len > CONF_NAME_MAX || name.at[0] == '.' || name.at[0] == '-')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

bool conf_list_has(const struct conf_list *l, const char *word)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->item[i], word) == 0)
            return true;
    return false;
}

bool conf_list_allows(const struct conf_list *l, const char *word)
{
    return conf_list_has(l, word) || conf_list_has(l, "*");
}

bool conf_asks_scram(const struct conf *c, const struct conf_listener *l, struct text user)
{
    for (size_t i = 0; i < l->scram_users.count; i++)
        if (text_matches(user, l->scram_users.item[i]))
            return true;
    return c->issuer_count == 0;
}

const struct conf_database *conf_database_for(const struct conf *c, struct text name)
{
    struct conf_section *at = named(c, CONF_KIND_database, name);
    return (struct conf_database *)(at ? at : named(c, CONF_KIND_database, TEXT("*")));
}

const struct conf_plan *conf_plan_named(const struct conf *c, struct text name)
{
    return (struct conf_plan *)named(c, CONF_KIND_plan, name);
}

static const char *pair_value(struct text name, const char *const *pairs)
{
    for (; *pairs; pairs += 2)
        if (text_is(name, pairs[0]))
            return pairs[1];
    return NULL;
}

bool conf_expand(const char *template, char *out, size_t size, const char *const *pairs)
{
    size_t len = 0;
    const char *at = template;
    CHECK(size > 0);
    for (; *at; at++) {
        struct text piece = {at, 1};
        if (at[0] == '$' && at[1] == '{') {
            const char *close = strchr(at, '}');
            size_t n = close ? (size_t)(close - at) - 2 : 0;
            const char *value = close ? pair_value((struct text){at + 2, n}, pairs) : NULL;
            if (!value)
                break;
            piece = text_of(value);
            at = close;
        }
        if (piece.len > size - 1 - len)
            break;
        memcpy(out + len, piece.at, piece.len);
        len += piece.len;
    }
    /* Half an expansion would be a name of somebody else's. */
    out[*at ? 0 : len] = '\0';
    return *at == '\0';
}

/* ---- showing and comparing ---- */

static void visit_section(const struct conf_section *at, enum conf_kind kind, const char *label,
                          conf_visit *visit, void *arg)
{
    const struct conf_setting *row;
    struct conf_section *defaults = mem_new(1, conf_kind_row(kind)->size);
    section_init(defaults, kind, "");
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        struct buf value, def;
        if (row->kind != kind)
            continue;
        buf_init(&value, SHOWN_MAX);
        buf_init(&def, SHOWN_MAX);
        conf_value_text(row, at, &value);
        conf_value_text(row, defaults, &def);
        if (buf_put(&value, "", 1) && buf_put(&def, "", 1))
            visit(arg, label, row->key, value.at, def.at, row->reloads);
        buf_free(&value);
        buf_free(&def);
    }
    section_release(defaults, kind);
    mem_free(defaults);
}

void conf_each(const struct conf *c, conf_visit *visit, void *arg)
{
    const struct conf_inside *in = conf_inside(c);
    visit_section(&c->postern.at, CONF_KIND_postern, "postern", visit, arg);
    visit_section(&c->redis.at, CONF_KIND_redis, "redis", visit, arg);
    for (size_t i = 0; i < in->section_count; i++)
        if (conf_kind_row(in->sections[i]->kind)->has_name)
            visit_section(in->sections[i]->made, in->sections[i]->kind, in->sections[i]->label,
                          visit, arg);
}

static const struct conf_section *same_section(const struct conf *c, enum conf_kind kind,
                                               const char *name)
{
    if (kind == CONF_KIND_postern)
        return &c->postern.at;
    if (kind == CONF_KIND_redis)
        return &c->redis.at;
    return named(c, kind, text_of(name));
}

/* w: what the new files say of it; NULL: nothing. */
static void keep(const struct conf_section *old, struct conf_section *fresh, enum conf_kind kind,
                 const struct conf_written *w, const char *label, struct buf *out)
{
    const struct conf_setting *row;
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        struct buf was, is;
        if (row->kind != kind || row->reloads)
            continue;
        buf_init(&was, SHOWN_MAX);
        buf_init(&is, SHOWN_MAX);
        conf_value_text(row, old, &was);
        conf_value_text(row, fresh, &is);
        if (conf_value_copy(row, fresh, old)) {
            const struct conf_entry *e = entry_of(w, row->key);
            if (e)
                buf_printf(out, "%s:%u: ", e->file->name, e->line);
            else
                buf_printf(out, "%s: ", fresh->file);
            buf_printf(out,
                       "[%s] %s: \"" TEXT_FMT "\" becomes \"" TEXT_FMT "\" only after a restart\n",
                       label, row->key, TEXT_ARG(buf_text(&was)), TEXT_ARG(buf_text(&is)));
        }
        buf_free(&was);
        buf_free(&is);
    }
}

void conf_keep_restart(struct conf *fresh, const struct conf *old, struct buf *out)
{
    const struct conf_inside *in = conf_inside(fresh);
    keep(&old->postern.at, &fresh->postern.at, CONF_KIND_postern, written_of(fresh, &fresh->postern.at), "postern", out);
    keep(&old->redis.at, &fresh->redis.at, CONF_KIND_redis, written_of(fresh, &fresh->redis.at), "redis", out);
    for (size_t i = 0; i < in->section_count; i++) {
        const struct conf_written *w = in->sections[i];
        const struct conf_section *was = same_section(old, w->kind, w->made->name);
        if (conf_kind_row(w->kind)->has_name && was)
            keep(was, w->made, w->kind, w, w->label, out);
    }
}
