/* Learned welcomes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/welcome.h"

#include "base/mem.h"
#include "pg/wire.h"

/* Sets of variables that are remembered; beyond them the oldest knowledge goes, all at once. */
enum { WELCOMES_MAX = 256, NAME_MAX_BYTES = 63 };

struct welcome {
    struct text key;
    struct buf messages;
};

static const struct text name_variable = {"application_name", 16};

void welcomes_init(struct welcomes *w)
{
    *w = (struct welcomes){0};
    CHECK(pthread_mutex_init(&w->lock, NULL) == 0);
}

static void welcome_free(struct welcome *each)
{
    mem_free((char *)each->key.at);
    buf_free(&each->messages);
    mem_free(each);
}

static void forget(struct welcomes *w)
{
    size_t i = 0;
    for (struct welcome *each; (each = map_each(&w->by_key, &i));)
        welcome_free(each);
    map_free(&w->by_key);
}

void welcomes_free(struct welcomes *w)
{
    forget(w);
    buf_free(&w->base);
    pthread_mutex_destroy(&w->lock);
}

void welcomes_forget(struct welcomes *w)
{
    pthread_mutex_lock(&w->lock);
    forget(w);
    buf_free(&w->base);
    pthread_mutex_unlock(&w->lock);
}

/* The server replaces what is not printable ASCII, and cuts what is too long. */
static bool is_plain(struct text name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.at[i] < 32 || name.at[i] > 126)
            return false;
    return name.len <= NAME_MAX_BYTES;
}

/* What the messages depend on, as text; empty: on nothing. `name` is set when the set has an
 * application_name that goes in as it is. */
struct asked {
    struct buf key;
    struct text name;
};

/* False when memory is out. */
static bool ask(struct asked *a, const struct varset *vars, const struct varset *startup)
{
    struct var v;
    *a = (struct asked){0};
    buf_init(&a->key, 3 * (size_t)VARSET_MAX_BYTES);
    bool ok = true;
    for (size_t pos = 0; ok && varset_each(vars, &pos, &v);) {
        if (text_eq(v.name, name_variable) && is_plain(v.value))
            a->name = v.value;
        else
            ok = buf_put(&a->key, v.name.at, v.name.len + 1) && buf_put(&a->key, v.value.at, v.value.len + 1);
    }
    if (startup)
        ok = ok && buf_put(&a->key, "", 1); /* no variable has an empty name */
    for (size_t pos = 0; ok && varset_each(startup, &pos, &v);)
        ok = buf_put(&a->key, v.name.at, v.name.len + 1) && buf_put(&a->key, v.value.at, v.value.len + 1);
    if (!ok)
        buf_free(&a->key);
    return ok;
}

/* One message of a list; false at its end. */
static bool each_parameter(struct text *list, struct text *message, struct text *name, struct text *value)
{
    if (list->len < WIRE_HEADER)
        return false;
    size_t size = (size_t)wire_u32(list->at + 1) + 1;
    CHECK(size <= list->len);
    *message = (struct text){list->at, size};
    struct wire_reader r = wire_read((struct text){list->at + WIRE_HEADER, size - WIRE_HEADER});
    *name = wire_get_z(&r);
    *value = wire_get_z(&r);
    list->at += size;
    list->len -= size;
    return true;
}

static bool value_in(struct text list, struct text wanted, struct text *value)
{
    struct text message, name;
    while (each_parameter(&list, &message, &name, value))
        if (text_eq(name, wanted))
            return true;
    return false;
}

static bool find(const struct welcomes *w, const struct asked *a, const struct varset *vars, struct buf *out)
{
    if (buf_size(&w->base) == 0)
        return false;
    const struct welcome *known = a->key.len ? map_get(&w->by_key, buf_text(&a->key)) : NULL;
    if (a->key.len && !known)
        return false;
    struct text own_name = a->name, default_name;
    struct text list = buf_text(known ? &known->messages : &w->base), message, name, value;
    if (!own_name.at && value_in(buf_text(&w->base), name_variable, &default_name))
        own_name = default_name;
    bool keeps = vars && varset_get(vars, name_variable, &value) && !is_plain(value);
    bool ok = true;
    while (ok && each_parameter(&list, &message, &name, &value))
        ok = text_eq(name, name_variable) && own_name.at && !keeps ? wire_parameter(out, name, own_name)
                                                                  : buf_put(out, message.at, message.len);
    return ok;
}

bool welcomes_find(struct welcomes *w, const struct varset *vars, const struct varset *startup, struct buf *out)
{
    struct asked a;
    if (!ask(&a, vars, startup))
        return false;
    pthread_mutex_lock(&w->lock);
    bool ok = find(w, &a, vars, out);
    pthread_mutex_unlock(&w->lock);
    buf_free(&a.key);
    return ok;
}

static bool set_base(struct welcomes *w, struct text messages)
{
    if (text_eq(buf_text(&w->base), messages))
        return false;
    forget(w);
    buf_free(&w->base);
    buf_init(&w->base, WELCOME_MAX);
    return buf_put(&w->base, messages.at, messages.len);
}

static void learn(struct welcomes *w, const struct asked *a, struct text messages)
{
    if (!a->key.len && !a->name.at)
        (void)set_base(w, messages);
    if (!a->key.len || map_get(&w->by_key, buf_text(&a->key)))
        return;
    if (w->by_key.count >= WELCOMES_MAX)
        forget(w);
    struct welcome *fresh = NEW(struct welcome);
    fresh->key = (struct text){mem_dup_n(a->key.at, a->key.len), a->key.len};
    buf_init(&fresh->messages, WELCOME_MAX);
    if (buf_put(&fresh->messages, messages.at, messages.len))
        map_put(&w->by_key, fresh->key, fresh);
    else
        welcome_free(fresh);
}

void welcomes_learn(struct welcomes *w, const struct varset *vars, const struct varset *startup,
                    struct text messages)
{
    struct asked a;
    if (!ask(&a, vars, startup))
        return;
    pthread_mutex_lock(&w->lock);
    learn(w, &a, messages);
    pthread_mutex_unlock(&w->lock);
    buf_free(&a.key);
}

bool welcomes_base(struct welcomes *w, struct text messages)
{
    pthread_mutex_lock(&w->lock);
    bool changed = set_base(w, messages);
    pthread_mutex_unlock(&w->lock);
    return changed;
}

void welcomes_copy_base(struct welcomes *w, struct buf *out)
{
    buf_free(out);
    buf_init(out, WELCOME_MAX);
    pthread_mutex_lock(&w->lock);
    struct text base = buf_text(&w->base);
    (void)!buf_put(out, base.at, base.len);
    pthread_mutex_unlock(&w->lock);
}
