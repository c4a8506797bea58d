/* The C programs' part of what python/harness.py does: common.cases and the program's own
 * cases, one line of result each. Included once by each program, which defines the driver's
 * functions first; texts are malloc'ed and never freed: the program is short-lived.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct out {
    char *at;
    size_t used, size;
};

static void put(struct out *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (o->used + (size_t)n + 1 > o->size) {
        o->size = (o->used + (size_t)n + 1) * 2;
        o->at = realloc(o->at, o->size);
        if (!o->at)
            abort();
    }
    va_start(args, format);
    vsnprintf(o->at + o->used, (size_t)n + 1, format, args);
    va_end(args);
    o->used += (size_t)n;
}

/* A step of its own in the result. */
static void step(struct out *o, const char *text)
{
    put(o, "%s%s", o->used ? " ; " : "", text ? text : "(null)");
}

/* What the program defines. options: "key=value ;; key=value", or empty. A result or an error
 * is a text; driver_open's is "+" with *connection set. */
struct connection;
static char *driver_open(struct connection **connection, char *options);
static char *driver_run(struct connection *connection, const char *sql);
static char *driver_arg(struct connection *connection, const char *sql, char **values, int count);
static void driver_close(struct connection *connection);

struct own_case {
    const char *name;
    bool two;
    void (*run)(struct out *);
    /* Or one of several with a number. */
    void (*with)(struct out *, size_t number);
    size_t number;
};

static bool listed(const char *variable, const char *name)
{
    const char *list = getenv(variable);
    size_t n = strlen(name);
    while (list && *list) {
        size_t one = strcspn(list, "|");
        if (one == n && memcmp(list, name, n) == 0)
            return true;
        list += one + (list[one] == '|');
    }
    return false;
}

static bool wanted(const char *name, bool two)
{
    const char *only = getenv("DRIVERS_ONLY"), *one = getenv("DRIVERS_ONE");
    if (only && *only && !listed("DRIVERS_ONLY", name))
        return false;
    return !listed("DRIVERS_SKIP", name) && !(two && one && *one == '1');
}

static void tell(const char *name, const char *result)
{
    printf("%s\t", name);
    for (const char *p = result ? result : ""; *p; p++) {
        switch (*p) {
        case '\\': fputs("\\\\", stdout); break;
        case '\n': fputs("\\n", stdout); break;
        case '\r': fputs("\\r", stdout); break;
        case '\t': fputs("\\t", stdout); break;
        default: putchar(*p);
        }
    }
    putchar('\n');
    fflush(stdout);
}

static char *trimmed(char *s)
{
    while (*s == ' ')
        s++;
    size_t n = strlen(s);
    while (n && s[n - 1] == ' ')
        s[--n] = '\0';
    return s;
}

static char *word(char **rest)
{
    char *at = *rest;
    size_t n = strcspn(at, " ");
    *rest = at + n + (at[n] == ' ');
    at[n] = '\0';
    return at;
}

static void one_step(char *line, struct connection **connections, struct out *o)
{
    int times = 1, count = 0, values_count = 0;
    char *values[16], *last = NULL;
    char *verb = word(&line);
    if (strcmp(verb, "times") == 0) {
        times = atoi(word(&line));
        verb = word(&line);
    }
    struct connection **c = &connections[(unsigned char)*word(&line)];
    if (strcmp(verb, "arg") == 0) {
        char *tail = strstr(line, " <-");
        *tail = '\0';
        for (char *v = tail + 3; v;) {
            char *next = strchr(v, '|');
            if (next)
                *next++ = '\0';
            values[values_count++] = trimmed(v);
            v = next;
        }
    }
    for (int i = 0; i <= times; i++) {
        char *result = NULL;
        if (i == times) {
            ;
        } else if (strcmp(verb, "open") == 0) {
            result = driver_open(c, line);
        } else if (!*c) {
            result = strdup("(not connected)");
        } else if (strcmp(verb, "close") == 0) {
            driver_close(*c);
            *c = NULL;
            result = strdup("-");
        } else if (strcmp(verb, "run") == 0) {
            result = driver_run(*c, line);
        } else {
            result = driver_arg(*c, line, values, values_count);
        }
        if (last && result && strcmp(last, result) == 0) {
            count++;
            continue;
        }
        if (last) {
            step(o, last);
            if (count > 1)
                put(o, " x%d", count);
        }
        last = result;
        count = 1;
    }
}

static void end_case(const char *name, struct connection **connections, struct out *o)
{
    for (int i = 0; i < 256; i++) {
        if (connections[i])
            driver_close(connections[i]);
        connections[i] = NULL;
    }
    tell(name, o->at);
    free(o->at);
    memset(o, 0, sizeof(*o));
}

static int run_all(const struct own_case *own)
{
    static struct connection *connections[256];
    struct out o = {0};
    char *line = NULL, name[200] = "";
    size_t size = 0;
    FILE *f = fopen(getenv("DRIVERS_CASES"), "r");
    if (!f) {
        perror("DRIVERS_CASES");
        return 1;
    }
    while (getline(&line, &size, f) >= 0) {
        line[strcspn(line, "\n")] = '\0';
        if (*line == '#' || !*line)
            continue;
        if (strncmp(line, "case ", 5) == 0) {
            if (*name)
                end_case(name, connections, &o);
            char *rest = line + 5, *new_name = word(&rest);
            snprintf(name, sizeof(name), "%s", new_name);
            if (!wanted(name, strcmp(rest, "two") == 0)) {
                *name = '\0';
                continue;
            }
            printf("> %s\n", name);
            fflush(stdout);
        } else if (*name) {
            one_step(line, connections, &o);
        }
    }
    if (*name)
        end_case(name, connections, &o);
    fclose(f);
    for (; own->name; own++) {
        if (!wanted(own->name, own->two))
            continue;
        printf("> %s\n", own->name);
        fflush(stdout);
        if (own->with)
            own->with(&o, own->number);
        else
            own->run(&o);
        end_case(own->name, connections, &o);
    }
    return 0;
}
