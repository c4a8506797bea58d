/* The settings table as data, and the text form of each type of value.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_CONF_VALUES_H
#define POSTERN_CONF_VALUES_H

#include "conf/conf.h"

enum conf_kind {
    CONF_KIND_postern,
    CONF_KIND_redis,
    CONF_KIND_listener,
    CONF_KIND_issuer,
    CONF_KIND_plan,
    CONF_KIND_tenant,
    CONF_KIND_cluster,
    CONF_KIND_database,
    CONF_KINDS
};

/* The name is what stands in brackets; wildcard: [tenant *] is possible. */
struct conf_kind_row {
    const char *word;
    bool has_name, has_wildcard;
    size_t size;                       /* of struct conf_<kind> */
    size_t array_offset, count_offset; /* of the array in struct conf; kinds with a name */
};

enum conf_type {
    CONF_TYPE_BOOL,
    CONF_TYPE_U32,
    CONF_TYPE_DURATION,
    CONF_TYPE_SIZE,
    CONF_TYPE_TEXT,
    CONF_TYPE_PATH,
    CONF_TYPE_ENUM,
    CONF_TYPE_LIST,
    CONF_TYPE_PATHS,
    CONF_TYPE_HOSTS
};

struct conf_setting {
    enum conf_kind kind;
    const char *key;
    enum conf_type type;
    const char *def; /* NULL: the file must set it */
    const char *limits;
    bool reloads;
    const char *help;
    size_t offset; /* in struct conf_<kind> */
};

const struct conf_kind_row *conf_kind_row(enum conf_kind kind);
/* The row, or NULL behind the last one. Rows of one kind stand together. */
const struct conf_setting *conf_setting_at(size_t i);
/* NULL when the kind has no such key. */
const struct conf_setting *conf_setting_find(enum conf_kind kind, struct text key);

/* Sets the field in a section from text. `dir` is what relative paths start from (NULL: they
 * stay as they are). False: *bad is the part that is wrong, and the field unchanged, but that a list
 * has what could be read of it. */
bool conf_value_set(const struct conf_setting *row, struct conf_section *at, struct text value,
                    const char *dir, struct text *bad) MUST_USE;
/* An empty value, for a REQUIRED setting that the file forgot: no text is ever NULL. */
void conf_value_clear(const struct conf_setting *row, struct conf_section *at);
void conf_value_free(const struct conf_setting *row, struct conf_section *at);
/* Gives `to` the value of `from`; true when it had another. */
bool conf_value_copy(const struct conf_setting *row, struct conf_section *to, const struct conf_section *from);
/* The present value in its shortest form; what it prints conf_value_set() reads. */
void conf_value_text(const struct conf_setting *row, const struct conf_section *at,
                     struct buf *out);
/* "a whole number, 0..256": for faults and for the manual. */
void conf_value_allowed(const struct conf_setting *row, struct buf *out);
/* A part of a list that stands in quotes, which would be part of the name. */
bool conf_value_is_quoted(struct text item);
/* Continuation lines of this setting join with a comma (lists) or a space. */
bool conf_value_is_list(const struct conf_setting *row);

/* Host names, IPv4, [IPv6], with ":port" or without (then port is `def`; 0 there means that
 * one must be given). out->host is fresh memory. */
bool conf_host_parse(struct text t, uint16_t lowest_port, uint16_t def, struct conf_host *out);

#endif
