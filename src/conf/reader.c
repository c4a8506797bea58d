/* Configuration files to sections of entries, on top of libinih.
 *
 * libinih splits keys from values and strips comments. What it cannot tell us, the reader
 * that feeds it knows: the number of the line, sections without a key, names longer than its
 * 50 bytes, lines longer than its 200, and lines that it gave up on. A section's header is
 * read here and handed on as "[]", so that libinih only forgets the key before it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conf/inside.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

enum { DEPTH_MAX = 4, FILES_MAX = 4096 };

/* What an indented line would continue. */
enum owner {
    OWNER_NONE,    /* nothing: it is a line like any other */
    OWNER_ENTRY,   /* the value of r->entry */
    OWNER_INCLUDE, /* one more file to include */
    OWNER_DROPPED  /* a line that was refused: what continues it goes with it */
};

struct include {
    char *path;
    unsigned line;
};

struct reader {
    struct conf_inside *in;
    struct conf_faults *faults;
    const struct conf_file *file;
    struct text rest;
    unsigned line;
    struct conf_written *section; /* NULL before the first header and after a refused one */
    char label[CONF_LABEL];       /* of the section, also of a refused one */
    bool in_section;              /* a header was seen, whether it was refused or not */
    struct conf_entry *entry;
    enum owner owner;
    bool continues; /* the line handed out is an indented one */
    bool owed;      /* the line handed out must come back through on_pair() */
    struct text owed_line;
    struct include *includes;
    size_t include_count;
};

static void read_path(struct conf_inside *in, const char *path, unsigned depth,
                      const struct reader *from, unsigned line, struct conf_faults *faults);

static void __attribute__((format(printf, 3, 4)))
complain(struct reader *r, const char *key, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    conf_fault_va(r->faults, r->file->name, r->line, r->label[0] ? r->label : NULL, key, fmt, ap);
    va_end(ap);
}

/* Room for one more element: doubles at each power of two. */
static void *one_more(void *at, size_t count, size_t size)
{
    if (count & (count - 1))
        return at;
    void *grown = mem_new(count ? count * 2 : 1, size);
    if (count)
        memcpy(grown, at, count * size);
    mem_free(at);
    return grown;
}

/* ---- suggestions ---- */

/* Edit distance of two short words; anything longer is just far away. */
static unsigned distance(struct text a, const char *z)
{
    enum { WORD = 48 };
    unsigned row[WORD + 1];
    struct text b = text_of(z);
    if (a.len > WORD || b.len > WORD)
        return UINT_MAX;
    for (unsigned j = 0; j <= b.len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned change = diagonal + (a.at[i - 1] != b.at[j - 1]);
            unsigned step = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
            diagonal = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[b.len];
}

static bool is_near(struct text word, unsigned d)
{
    return d <= 3 && d * 2 <= word.len;
}

static void unknown_kind(struct reader *r, struct text word)
{
    const char *best = NULL;
    unsigned least = UINT_MAX;
    for (unsigned k = 0; k < CONF_KINDS; k++) {
        unsigned d = distance(word, conf_kind_row(k)->word);
        if (d < least)
            least = d, best = conf_kind_row(k)->word;
    }
    if (is_near(word, least))
        complain(r, NULL, "unknown section; did you mean [%s]?", best);
    else
        complain(r, NULL,
                 "unknown section; allowed: postern, redis, listener, issuer, plan, "
                 "tenant, cluster and database");
}

static void unknown_key(struct reader *r, struct text key)
{
    const struct conf_setting *row, *near = NULL;
    unsigned least = UINT_MAX;
    char name[64];
    if (!text_to_array(key, name, sizeof(name)))
        text_to_array((struct text){key.at, sizeof(name) - 1}, name, sizeof(name));
    for (size_t i = 0; (row = conf_setting_at(i)); i++) {
        if (text_is(key, row->key)) {
            complain(r, name, "unknown key here; it belongs to [%s]",
                     conf_kind_row(row->kind)->word);
            return;
        }
        unsigned d = row->kind == r->section->kind ? distance(key, row->key) : UINT_MAX;
        if (d < least)
            least = d, near = row;
    }
    if (near && is_near(key, least))
        complain(r, name, "unknown key; did you mean %s?", near->key);
    else
        complain(r, name, "unknown key");
}

/* ---- section headers ---- */

static bool is_name(struct text t)
{
    if (text_is(t, "*"))
        return true;
    for (size_t i = 0; i < t.len; i++) {
        char c = t.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '-' || c == '_'))
            return false;
    }
    return t.len > 0 && t.len <= CONF_NAME_MAX;
}

/* True when the name suits the kind. */
static bool check_name(struct reader *r, const struct conf_kind_row *kind, struct text name)
{
    if (!kind->has_name && name.len)
        complain(r, NULL, "this section takes no name; write [%s]", kind->word);
    else if (kind->has_name && !name.len)
        complain(r, NULL, "this section needs a name: [%s NAME]", kind->word);
    else if (name.len && !is_name(name))
        complain(r, NULL, "bad name; allowed: 1 to %d of letters, digits, dot, dash and underscore",
                 CONF_NAME_MAX);
    else if (text_is(name, "*") && !kind->has_wildcard)
        complain(r, NULL, "the name * is for [tenant *] and [database *] only");
    else
        return true;
    return false;
}

static struct conf_written *add_section(struct reader *r, enum conf_kind kind)
{
    struct conf_inside *in = r->in;
    struct conf_written *w = NEW(struct conf_written);
    w->kind = kind;
    w->label = mem_dup(r->label);
    w->file = r->file;
    w->line = r->line;
    in->sections = one_more(in->sections, in->section_count, sizeof(struct conf_written *));
    in->sections[in->section_count++] = w;
    map_put(&in->by_label, text_of(w->label), w);
    return w;
}

static void open_section(struct reader *r, struct text kind_word, struct text name)
{
    unsigned kind = 0;
    while (kind < CONF_KINDS && !text_is(kind_word, conf_kind_row(kind)->word))
        kind++;
    if (kind == CONF_KINDS) {
        unknown_kind(r, kind_word);
        return;
    }
    if (!check_name(r, conf_kind_row(kind), name))
        return;
    struct conf_written *w = map_get(&r->in->by_label, text_of(r->label));
    if (!w)
        r->section = add_section(r, kind);
    else if (!conf_kind_row(kind)->has_name && w->file != r->file)
        r->section = w; /* [postern] goes on in another file */
    else
        complain(r, NULL, "a second section of this name; the first is at %s:%u", w->file->name,
                 w->line);
}

static bool has_control(struct text line)
{
    for (size_t i = 0; i < line.len; i++)
        if (((unsigned char)line.at[i] < 0x20 && line.at[i] != '\t') || line.at[i] == 0x7f)
            return true;
    return false;
}

/* "kind name" into r->label; false when it does not fit. */
static bool set_label(struct reader *r, struct text kind, struct text name)
{
    r->label[0] = '\0';
    if (kind.len + name.len + 2 > sizeof(r->label))
        return false;
    snprintf(r->label, sizeof(r->label), TEXT_FMT "%s" TEXT_FMT, TEXT_ARG(kind),
             name.len ? " " : "", TEXT_ARG(name));
    return true;
}

/* line starts with '['. */
static void header(struct reader *r, struct text line)
{
    const char *close = memchr(line.at, ']', line.len);
    size_t n = 0;
    r->section = NULL;
    r->owner = OWNER_NONE;
    r->label[0] = '\0';
    r->in_section = true;
    if (!close || has_control(line)) {
        complain(r, NULL, "%s",
                 close ? "a control character in a section's header"
                       : "a section's header without its ]");
        return;
    }
    struct text words = text_trim((struct text){line.at + 1, (size_t)(close - line.at) - 1});
    struct text behind = {close + 1, line.len - (size_t)(close - line.at) - 1};
    while (n < words.len && words.at[n] != ' ' && words.at[n] != '\t')
        n++;
    struct text kind = {words.at, n}, name = text_trim((struct text){words.at + n, words.len - n});
    behind = text_trim(behind);
    if (!set_label(r, kind, name))
        complain(r, NULL, "a section's header that is too long: names have 1 to %d bytes",
                 CONF_NAME_MAX);
    else if (behind.len && behind.at[0] != ';' && behind.at[0] != '#')
        complain(r, NULL, "text behind a section's header");
    else
        open_section(r, kind, name);
}

/* ---- lines, handed to libinih ---- */

/* An indented "key = value" where key is one of this section's: meant as a line of its own. */
static bool looks_like_key(const struct reader *r, struct text line)
{
    const char *equals = memchr(line.at, '=', line.len);
    return equals && r->section &&
           conf_setting_find(r->section->kind,
                             text_trim((struct text){line.at, (size_t)(equals - line.at)}));
}

/* Versions of libinih differ in whether a continued line may end in a comment: ours may. */
static struct text without_comment(struct text line)
{
    for (size_t i = 1; i < line.len; i++)
        if (line.at[i] == ';' && (line.at[i - 1] == ' ' || line.at[i - 1] == '\t'))
            line.len = i;
    return line;
}

/* Whether libinih shall see the line, and of it how much. */
static bool take_line(struct reader *r, struct text *shown, size_t limit)
{
    struct text line = *shown, words = text_trim(line);
    if (words.len == 0 || words.at[0] == ';' || words.at[0] == '#')
        return false;
    r->continues = words.at != line.at && r->owner != OWNER_NONE;
    if (!r->continues && words.at[0] == '[') {
        header(r, words);
        return false;
    }
    if (has_control(line))
        complain(r, NULL, "a control character (byte below 0x20, or 0x7f) in this line");
    else if (line.len > limit)
        complain(r, NULL,
                 "this line has more than %zu bytes; continue the value on an indented line",
                 limit);
    else if (r->continues && looks_like_key(r, words))
        complain(r, NULL,
                 "an indented line continues the value above it; "
                 "start each key at the beginning of its line");
    else if (!r->continues || r->owner != OWNER_DROPPED) {
        if (r->continues)
            *shown = without_comment(line);
        return true;
    }
    if (!r->continues)
        r->owner = OWNER_DROPPED;
    return false;
}

/* Enough to find it by: what stands behind it in a file that was taken for a configuration may be a secret. */
static struct text first_word(struct text line)
{
    enum { FOUND = 40 };
    struct text words = text_trim(line);
    size_t n = 0;
    while (n < words.len && n < FOUND && words.at[n] != ' ' && words.at[n] != '\t')
        n++;
    return (struct text){words.at, n};
}

/* libinih says nothing about a line in which it finds no key: it just asks for the next. */
static void settle(struct reader *r)
{
    if (!r->owed)
        return;
    struct text found = first_word(r->owed_line);
    complain(r, NULL, "found \"" TEXT_FMT "%s\", a line that is neither 'key = value' nor a [section]", TEXT_ARG(found),
             found.len < text_trim(r->owed_line).len ? " ..." : "");
    r->owed = false;
    r->owner = OWNER_DROPPED;
}

static char *next_line(char *out, int size, void *arg)
{
    struct reader *r = arg;
    struct text line;
    settle(r);
    CHECK(size > 16);
    if (!text_split(&r->rest, '\n', &line))
        return NULL;
    r->line++;
    if (line.len && line.at[line.len - 1] == '\r')
        line.len--;
    if (r->line == 1 && text_starts(line, "\xef\xbb\xbf"))
        line.at += 3, line.len -= 3;
    size_t limit = (size_t)size - 3;
    enum owner before = r->owner;
    if (take_line(r, &line, limit)) {
        r->owed = true;
        r->owed_line = line;
        memcpy(out, line.at, line.len);
        out[line.len] = '\n';
        out[line.len + 1] = '\0';
    } else {
        /* After a header libinih must forget the key before it. */
        bool reset = before != OWNER_NONE && r->owner == OWNER_NONE;
        snprintf(out, (size_t)size, "%s\n", reset ? "[]" : "");
    }
    return out;
}

/* ---- keys and values, from libinih ---- */

static void add_include(struct reader *r, const char *value)
{
    r->owner = OWNER_INCLUDE;
    if (value[0] == '\0') {
        complain(r, "include", "found \"\"; allowed: a file or a directory");
        return;
    }
    r->includes = one_more(r->includes, r->include_count, sizeof(*r->includes));
    r->includes[r->include_count++] = (struct include){mem_dup(value), r->line};
}

static void add_entry(struct reader *r, const char *key, const char *value)
{
    struct conf_written *w = r->section;
    const struct conf_setting *row = conf_setting_find(w->kind, text_of(key));
    if (!row) {
        unknown_key(r, text_of(key));
        return;
    }
    for (size_t i = 0; i < w->entry_count; i++)
        if (w->entries[i].row == row) {
            complain(r, key, "set a second time; the first is at %s:%u", w->entries[i].file->name,
                     w->entries[i].line);
            return;
        }
    w->entries = one_more(w->entries, w->entry_count, sizeof(*w->entries));
    r->entry = &w->entries[w->entry_count++];
    *r->entry = (struct conf_entry){.row = row, .file = r->file, .line = r->line};
    buf_init(&r->entry->value, CONF_VALUE_MAX);
    r->owner = OWNER_ENTRY;
    if (!buf_put_text(&r->entry->value, value))
        complain(r, key, "out of memory");
}

/* "a, b," and "c" are "a, b,c"; so are "a, b" and "c" in a list. */
static void add_piece(struct reader *r, const char *piece)
{
    struct buf *v = &r->entry->value;
    bool list = conf_value_is_list(r->entry->row);
    if (list && v->len && v->at[v->len - 1] == ',')
        v->len--;
    if ((v->len && !buf_put(v, list ? "," : " ", 1)) || !buf_put_text(v, piece)) {
        complain(r, r->entry->row->key, "the value has more than %d bytes", CONF_VALUE_MAX);
        r->owner = OWNER_DROPPED;
    }
}

static int on_pair(void *arg, const char *ignored, const char *key, const char *value)
{
    struct reader *r = arg;
    r->owed = false;
    if (!value)
        return 1;
    if (r->continues) {
        if (r->owner == OWNER_ENTRY)
            add_piece(r, value);
        else
            add_include(r, value);
        return 1;
    }
    r->owner = OWNER_DROPPED;
    if (!r->section) {
        if (!r->in_section)
            complain(r, NULL, "found \"%.40s\", a key before the first [section]", key);
    } else if (r->section->kind == CONF_KIND_postern && strcmp(key, "include") == 0)
        add_include(r, value);
    else
        add_entry(r, key, value);
    return 1;
}

/* ---- files ---- */

static struct conf_file *add_file(struct conf_inside *in, const char *name)
{
    struct conf_file *f = NEW(struct conf_file);
    f->name = mem_dup(name);
    in->files = one_more(in->files, in->file_count, sizeof(struct conf_file *));
    in->files[in->file_count++] = f;
    return f;
}

static char *directory_of(const char *path)
{
    char cwd[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (path[0] == '/')
        return mem_dup_n(path, n ? n : 1);
    if (!getcwd(cwd, sizeof(cwd)))
        return mem_dup_n(path, n);
    return n ? mem_format("%s/%.*s", cwd, (int)n, path) : mem_dup(cwd);
}

static void parse(struct reader *r, struct text text)
{
    r->rest = text;
    ini_parse_stream(next_line, r, on_pair, r);
    settle(r);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* NULL at the end, and when the rest cannot be read: then with errno. */
static struct dirent *next_entry(DIR *dir)
{
    errno = 0;
    return fault_here() ? NULL : readdir(dir);
}

static void read_directory(DIR *dir, const char *path, unsigned depth, const struct reader *from,
                           unsigned line)
{
    char **names = NULL;
    size_t count = 0;
    for (struct dirent *e; (e = next_entry(dir));) {
        size_t n = strlen(e->d_name);
        if (e->d_name[0] == '.' || n < 5 || strcmp(e->d_name + n - 4, ".ini") != 0)
            continue;
        names = one_more(names, count, sizeof(*names));
        names[count++] = mem_format("%s/%s", path, e->d_name);
    }
    /* Half a folder would be a configuration without the other half's tenants. */
    if (errno)
        conf_fault_at(from->faults, from->file->name, line, "postern", "include", "%s cannot be read: %s", path,
                      strerror(errno));
    if (count)
        qsort(names, count, sizeof(*names), by_name);
    for (size_t i = 0; i < count; i++) {
        read_path(from->in, names[i], depth, from, line, from->faults);
        mem_free(names[i]);
    }
    mem_free(names);
}

static void read_includes(struct reader *r, unsigned depth)
{
    for (size_t i = 0; i < r->include_count; i++) {
        struct include *inc = &r->includes[i];
        if (!r->file->dir) {
            conf_fault_at(r->faults, r->file->name, inc->line, "postern", "include",
                          "this text is not a file and cannot include one");
            mem_free(inc->path);
            continue;
        }
        char *path =
            inc->path[0] == '/' ? mem_dup(inc->path) : mem_format("%s/%s", r->file->dir, inc->path);
        DIR *dir = opendir(path);
        if (dir) {
            read_directory(dir, path, depth + 1, r, inc->line);
            closedir(dir);
        } else
            read_path(r->in, path, depth + 1, r, inc->line, r->faults);
        mem_free(path);
        mem_free(inc->path);
    }
    mem_free(r->includes);
}

/* The same file by whatever name: that also ends every cycle. */
static bool was_read(const struct conf_inside *in, const struct stat *st)
{
    for (size_t i = 0; i < in->file_count; i++)
        if (st->st_dev == in->files[i]->device && st->st_ino == in->files[i]->inode)
            return true;
    return false;
}

static void read_path(struct conf_inside *in, const char *path, unsigned depth,
                      const struct reader *from, unsigned line, struct conf_faults *faults)
{
    struct buf text;
    struct stat st = {0};
    char why[FILE_WHY];
    const char *file = from ? from->file->name : path, *section = from ? "postern" : NULL,
               *key = from ? "include" : NULL;
    if (depth > DEPTH_MAX)
        conf_fault_at(faults, file, line, section, key, "%s: more than %d files deep", path,
                      DEPTH_MAX);
    else if (in->file_count >= FILES_MAX)
        conf_fault_at(faults, file, line, section, key, "more than %d files", FILES_MAX);
    else if (stat(path, &st) == 0 && was_read(in, &st))
        conf_fault_at(faults, file, line, section, key,
                      "%s was read before: a file may be included once, and not from itself", path);
    else if (!file_read(path, CONF_FILE_MAX, false, &text, why)) {
        buf_free(&text);
        conf_fault_at(faults, file, line, section, key, "%s %s", path, why);
    } else {
        struct reader r = {.in = in, .faults = faults};
        struct conf_file *f = add_file(in, path);
        if (st.st_mode & S_IWOTH)
            conf_fault_at(faults, path, 0, NULL, NULL,
                          "found mode %04o: others may write this file, and so decide who is let in; use chmod o-w on it",
                          (unsigned)(st.st_mode & 07777));
        f->dir = directory_of(path);
        f->device = st.st_dev;
        f->inode = st.st_ino;
        r.file = f;
        parse(&r, buf_text(&text));
        buf_free(&text);
        read_includes(&r, depth);
    }
}

bool conf_read_file(struct conf_inside *in, const char *path, struct conf_faults *faults)
{
    read_path(in, path, 0, NULL, 0, faults);
    return in->file_count > 0;
}

void conf_read_text(struct conf_inside *in, const char *name, struct text text,
                    struct conf_faults *faults)
{
    struct reader r = {.in = in, .faults = faults, .file = add_file(in, name)};
    parse(&r, text);
    read_includes(&r, 0);
}
