/* A configuration of any bytes: it is read or refused, and what was read prints as itself.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <string.h>

#include "base/mem.h"
#include "conf/inside.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One line a fault, and nothing in it that moves a cursor. */
static void check_faults(const struct conf_faults *f)
{
    unsigned lines = 0;
    struct text t = buf_text(&f->text);
    for (size_t i = 0; i < t.len; i++) {
        lines += t.at[i] == '\n';
        CHECK((unsigned char)t.at[i] >= 0x20 || t.at[i] == '\n');
    }
    CHECK(lines <= f->count && (lines == f->count || t.len > 1 << 19));
}

/* Every value of the section, printed and read again, prints the same. */
static void check_section(const struct conf_section *at, enum conf_kind kind)
{
    const struct conf_setting *row;
    struct conf_section *copy = mem_new(1, conf_kind_row(kind)->size);
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        struct buf once, twice;
        struct text bad;
        if (row->kind != kind)
            continue;
        buf_init(&once, 4 * CONF_VALUE_MAX);
        buf_init(&twice, 4 * CONF_VALUE_MAX);
        conf_value_text(row, at, &once);
        CHECK(conf_value_set(row, copy, buf_text(&once), NULL, &bad));
        conf_value_text(row, copy, &twice);
        CHECK(text_eq(buf_text(&once), buf_text(&twice)));
        conf_value_free(row, copy);
        buf_free(&once);
        buf_free(&twice);
    }
    mem_free(copy);
}

static void visit(void *arg, const char *section, const char *key, const char *value,
                  const char *def, bool reloads)
{
    *(size_t *)arg += strlen(section) + strlen(key) + strlen(value) + strlen(def) + reloads;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_faults faults;
    struct buf restart;
    size_t seen = 0;
    conf_faults_init(&faults);
    buf_init(&restart, 1 << 20);
    struct conf *c =
        conf_load_text("fuzz.ini", (struct text){size ? (const char *)data : "", size}, &faults);
    check_faults(&faults);
    conf_each(c, visit, &seen);
    conf_keep_restart(c, c, &restart);
    CHECK(seen > 0 && buf_size(&restart) == 0);
    if (faults.count == 0) {
        const struct conf_inside *in = conf_inside(c);
        for (size_t i = 0; i < in->section_count; i++)
            check_section(in->sections[i]->made, in->sections[i]->kind);
        for (size_t i = 0; i < c->database_count; i++)
            CHECK(c->databases[i]->cluster_row != NULL);
    }
    for (size_t i = 0; i < c->tenant_count; i++)
        conf_fault(&faults, c, &c->tenants[i]->at, "plan", "%s", c->tenants[i]->plan);
    conf_tenant_for(c, (struct text){(const char *)data, size});
    buf_free(&restart);
    conf_unref(c);
    conf_faults_free(&faults);
    return 0;
}
