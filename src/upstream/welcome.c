/* Learned welcomes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/welcome.h"

#include "base/mem.h"
#include "pg/wire.h"

/* Sets of variables that are remembered; beyond them the oldest knowledge goes, all at once. */
enum { WELCOMES_MAX = 256, NAME_MAX_BYTES = 63 };

struct welcome {
    struct varset *vars; /* the key */
    struct buf messages;
};

static const struct text name_variable = {"application_name", 16};

static void forget(struct welcomes *w)
{
    size_t i = 0;
    for (struct welcome *each; (each = map_each(&w->by_vars, &i));) {
        varset_drop(&each->vars);
        buf_free(&each->messages);
        mem_free(each);
    }
    map_free(&w->by_vars);
}

void welcomes_free(struct welcomes *w)
{
    forget(w);
    buf_free(&w->base);
}

/* The server replaces what is not printable ASCII, and cuts what is too long. */
static bool is_plain(struct text name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.at[i] < 32 || name.at[i] > 126)
            return false;
    return name.len <= NAME_MAX_BYTES;
}

/* What the messages depend on, with a reference; NULL: on nothing. `name` is set when the set
 * has an application_name that goes in as it is. False when memory is out. */
static bool key_of(struct varsets *home, const struct varset *vars, struct varset **key, struct text *name)
{
    *key = NULL;
    *name = (struct text){NULL, 0};
    if (!vars || vars->count == 0)
        return true;
    if (varset_get(vars, name_variable, name) && is_plain(*name)) {
        *key = varset_make(home, vars, &(struct var){name_variable, {NULL, 0}}, 1);
        if (!*key)
            return false;
        if ((*key)->count == 0)
            varset_drop(key);
        return true;
    }
    name->at = NULL;
    *key = varset_ref((struct varset *)vars);
    return true;
}

static struct text map_key(struct varset *const *vars)
{
    return (struct text){(const char *)vars, sizeof(*vars)};
}

static bool value_in(struct text list, struct text wanted, struct text *value)
{
    struct text message, name;
    while (wire_each_parameter(&list, &message, &name, value))
        if (text_eq(name, wanted))
            return true;
    return false;
}

bool welcomes_find(const struct welcomes *w, struct varsets *home, const struct varset *vars, struct buf *out)
{
    struct varset *key;
    struct text own_name, default_name;
    if (buf_size(&w->base) == 0 || !key_of(home, vars, &key, &own_name))
        return false;
    const struct welcome *known = key ? map_get(&w->by_vars, map_key(&key)) : NULL;
    bool ok = !key || known;
    varset_drop(&key);
    if (!ok)
        return false;
    struct text list = buf_text(known ? &known->messages : &w->base), message, name, value;
    if (!own_name.at && value_in(buf_text(&w->base), name_variable, &default_name))
        own_name = default_name;
    bool keeps = vars && varset_get(vars, name_variable, &value) && !is_plain(value);
    while (ok && wire_each_parameter(&list, &message, &name, &value))
        ok = text_eq(name, name_variable) && own_name.at && !keeps ? wire_parameter(out, name, own_name)
                                                                  : buf_put(out, message.at, message.len);
    return ok;
}

void welcomes_learn(struct welcomes *w, struct varsets *home, const struct varset *vars, struct text messages)
{
    struct varset *key;
    struct text name;
    if (!key_of(home, vars, &key, &name))
        return;
    if (!key && !name.at)
        welcomes_base(w, messages);
    if (!key || map_get(&w->by_vars, map_key(&key))) {
        varset_drop(&key);
        return;
    }
    if (w->by_vars.count >= WELCOMES_MAX)
        forget(w);
    struct welcome *fresh = NEW(struct welcome);
    fresh->vars = key;
    buf_init(&fresh->messages, WELCOME_MAX);
    if (buf_put(&fresh->messages, messages.at, messages.len)) {
        map_put(&w->by_vars, map_key(&fresh->vars), fresh);
        return;
    }
    varset_drop(&fresh->vars);
    mem_free(fresh);
}

void welcomes_base(struct welcomes *w, struct text messages)
{
    if (text_eq(buf_text(&w->base), messages))
        return;
    forget(w);
    buf_free(&w->base);
    buf_init(&w->base, WELCOME_MAX);
    (void)!buf_put(&w->base, messages.at, messages.len);
}
