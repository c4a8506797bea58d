/* What the files of src/conf share: the configuration as it was written, before and beside
 * the typed form, and the entry that fuzzers and tests use.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_CONF_INSIDE_H
#define POSTERN_CONF_INSIDE_H

#include <stdarg.h>
#include <sys/types.h>

#include "base/map.h"
#include "conf/values.h"

struct conf_file {
    char *name; /* as it was opened, for faults */
    char *dir;  /* absolute: what relative paths start from; NULL for text in memory */
    dev_t device;
    ino_t inode;
};

struct conf_entry {
    const struct conf_setting *row;
    struct buf value; /* continuation lines joined */
    const struct conf_file *file;
    unsigned line;
};

/* One section of one file; [postern] and [redis] may go on in another file and stay one. */
struct conf_written {
    enum conf_kind kind;
    char *label; /* "tenant acme": the words in the brackets, one space between */
    const struct conf_file *file;
    unsigned line;
    struct conf_entry *entries;
    size_t entry_count;
    struct conf_section *made; /* the typed section */
};

struct conf_inside {
    struct conf_file **files;
    struct conf_written **sections; /* in the order of the files */
    size_t file_count, section_count;
    struct map by_label; /* label -> written */
    struct map by_place; /* address of the typed section -> written */
};

enum { CONF_NAME_MAX = 63, CONF_LABEL = 96, CONF_FILE_MAX = 16 << 20, CONF_VALUE_MAX = 64 << 10 };

static inline struct conf_inside *conf_inside(const struct conf *c)
{
    return c->inside;
}

/* A fault with a place that is not (yet) a section. Every part but fmt may be NULL, line 0. */
void conf_fault_at(struct conf_faults *f, const char *file, unsigned line, const char *section,
                   const char *key, const char *fmt, ...) PRINTF_LIKE(6, 7);
void conf_fault_va(struct conf_faults *f, const char *file, unsigned line, const char *section,
                   const char *key, const char *fmt, va_list ap)
    __attribute__((format(printf, 6, 0)));

/* reader.c: the file and what it includes, into sections of entries. False when path itself
 * cannot be read. */
bool conf_read_file(struct conf_inside *in, const char *path, struct conf_faults *faults);
/* Text from memory; it cannot include files. */
void conf_read_text(struct conf_inside *in, const char *name, struct text text,
                    struct conf_faults *faults);

/* check.c: references between sections, and values that exclude each other. */
void conf_check(struct conf *c, struct conf_faults *faults);

/* Whether a file sets the key of that section, to whatever value. */
bool conf_is_set(const struct conf *c, const struct conf_section *at, const char *key);

/* unused.c: settings that have no effect beside the others, and sections that nobody uses: advice. */
void conf_check_unused(const struct conf *c, struct conf_faults *f);

/* conf_load() for text in memory: never NULL. */
struct conf *conf_load_text(const char *name, struct text text, struct conf_faults *faults);

/* meet.c: two tenants that could be the same role in the same database. What else there is to find is sound. */
void conf_check_meetings(const struct conf *c, struct conf_faults *f);

#endif
