/* Clients that do everything at once, and check every byte of what they are told.
 *
 *   torture.c   options, the loop, the end        peer.c    sockets, TLS, the login, cancels
 *   script.c    what a client does next           check.c   replies against what was foretold
 *   model.c     which variables a session has     report.c  what is printed about a fault
 *
 * A client makes a script: the bytes to send, and the exact replies they must bring (struct
 * expect). A unit is what one ReadyForQuery ends. Every value that is asked for carries the
 * client's number and that of its query (c17-q203). When the run includes faults (--chaos) or
 * a cancel is on its way, a unit may fail with one of a few SQLSTATEs instead; the client has
 * then been derailed: replies are still counted and looked at for other clients' numbers, and
 * what the session has become is asked and compared with what this client may have made of it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_TESTS_TORTURE_H
#define POSTERN_TESTS_TORTURE_H

#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;

/* ---- bytes ---- */

struct bytes {
    char *at;
    size_t len, cap;
};
void bytes_put(struct bytes *b, const void *at, size_t len);
void bytes_z(struct bytes *b, const char *text);
void bytes_u16(struct bytes *b, uint16_t n);
void bytes_u32(struct bytes *b, uint32_t n);
void bytes_take(struct bytes *b, size_t n);
void bytes_free(struct bytes *b);
/* A message begins, and its length is filled in. */
size_t message_begin(struct bytes *b, char type);
void message_end(struct bytes *b, size_t mark);
uint32_t get_u32(const char *at);
char *format(const char *pattern, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_us(void);

/* ---- variables ---- */

enum variable {
    VAR_APPLICATION_NAME,
    VAR_DATESTYLE,
    VAR_TIMEZONE,
    VAR_CLIENT_ENCODING,
    VAR_REPORTED, /* how many of them the server reports */
    VAR_SEARCH_PATH = VAR_REPORTED,
    VAR_STATEMENT_TIMEOUT,
    VAR_WORK_MEM,
    VAR_CUSTOM,
    VAR_FLOAT_DIGITS,
    VAR_ISOLATION,
    VAR_ROW_SECURITY,
    VAR_COUNT
};
enum { VALUE = 64, SAVES_MAX = 6 };
struct settings {
    char session[VAR_COUNT][VALUE];
    char local[VAR_COUNT][VALUE]; /* by SET LOCAL; valid where is_local */
    bool is_local[VAR_COUNT];
};
/* What the server's session is like after all that the script says so far. */
struct model {
    struct settings now, before; /* before: as the transaction began */
    struct settings saves[SAVES_MAX];
    int save_count;
    char status; /* I, T or E, as the next ReadyForQuery would say */
    bool implicit;
    char startup[VAR_COUNT][VALUE];
};
extern const char *const variable_names[VAR_COUNT];
const char *model_shows(const struct model *m, enum variable v);
void model_set(struct model *m, enum variable v, const char *value, bool local);
void model_reset(struct model *m, enum variable v);
void model_reset_all(struct model *m);
/* An implicit transaction begins and ends: around a Query or up to a Sync. */
void model_enter(struct model *m);
void model_leave(struct model *m);
void model_begin(struct model *m);
void model_commit(struct model *m);
void model_rollback(struct model *m);
bool model_save(struct model *m);
void model_rollback_to(struct model *m, int save);
void model_release(struct model *m, int save);
void model_error(struct model *m);
/* A value of this client's own: what SET says (quoted) and what SHOW says. */
void variable_value(enum variable v, int client, uint32_t serial, uint32_t random, char *set, char *shown);
/* May this client have made the variable so? */
bool variable_is_own(enum variable v, int client, const char *shown);

/* ---- scripts ---- */

enum { EXPECT_LEARN = 1, EXPECT_ANY = 2, EXPECT_REPEAT = 4 };
struct expect {
    char type;
    uint8_t flags;
    uint8_t variable;
    uint32_t size; /* REPEAT: the text over and over, so many bytes */
    char *text;    /* D: the only column; C: tag; E: SQLSTATE; Z: status; T: column name; d: data */
};
/* Nothing behind byte `at` is sent before `expects` replies have come and a pause is over. */
struct hold {
    size_t at, expects;
    uint32_t pause_us;
};
enum { HOLDS_MAX = 12 };
struct script {
    const char *kind;
    struct bytes out;
    struct expect *expects;
    size_t count, cap, done;
    size_t *unit_ends; /* where in out each unit ends */
    size_t units, units_cap;
    struct hold holds[HOLDS_MAX];
    unsigned hold_count, hold_next;
    uint64_t hold_since;
    size_t cut_at;          /* the connection ends after so many bytes; SIZE_MAX: never */
    uint64_t cut_after;     /* us behind the first byte; 0: never */
    uint64_t cancel_after;  /* us; 0: never */
    uint64_t mute_until;    /* nothing is read before */
    unsigned mute_us;
    size_t piece;           /* most bytes in one write */
    bool resets, canceled, pins, quits;
};
void script_free(struct script *s);
/* The next script: what to do is drawn from the client's own random numbers. */
void script_make(struct client *c);
/* Asks for all variables, to learn or to compare. */
void script_learn(struct client *c);
void script_login(struct client *c);

/* ---- clients ---- */

enum phase { PHASE_RESTING, PHASE_CONNECTING, PHASE_TLS_ANSWER, PHASE_TLS, PHASE_LOGIN, PHASE_READY };
enum { NAMES = 5, RING = 2048, NOTES = 40 };

struct login {
    const char *user, *database;
    char *secret;
    bool known; /* its defaults have been learnt */
    bool learning;
    bool session; /* session mode: a server connection of its own, which ends with it */
    char defaults[VAR_COUNT][VALUE];
};

struct cancel {
    int fd;
    bool sent;
    uint64_t since;
};

struct client {
    int id;
    struct login *login;
    bool tls;
    enum phase phase;
    int fd;
    SSL *ssl;
    bool wants_write;
    uint64_t rest_until, progress, script_began;
    struct bytes in, out;
    size_t sent; /* of script.out */
    uint64_t random;
    uint32_t scripts, set_in; /* scripts so far, and which was the last to set variables on this connection; 0: none */
    uint32_t query, serial, prepares;
    uint32_t first_query; /* of the script */
    struct model model;
    char reported[VAR_COUNT][VALUE];
    bool has_reported[VAR_COUNT];
    char names[NAMES][96]; /* what a named statement answers with a parameter P: P + this; "": none */
    char unnamed[96];
    char portal[96];
    struct script script;
    char status; /* of the last ReadyForQuery */
    size_t unit_at; /* units that are over */
    bool derailed;  /* a unit of the script went another way */
    bool unit_failed, unit_lost, fatal;
    uint32_t loose_query; /* the last number seen while derailed */
    bool must_learn;
    bool has_pinned; /* since the connection began */
    bool is_new, inside; /* inside: what is made now is not a transaction of its own */
    uint64_t units_done, units_sent, cancelable_to;
    struct cancel cancel;
    char key[256];
    unsigned key_len;
    char received[RING];
    size_t received_count;
    char *notes[NOTES];
    unsigned note_count;
};

struct statistics {
    uint64_t logins, login_errors, scripts, units, rows, bytes, cuts, cancels, canceled, lost, fatals,
        derailed, notifications, copies, errors;
};

struct options {
    const char *host;
    int port;
    int clients;
    double seconds;
    uint64_t seed;
    double stuck;
    bool chaos;  /* connections are being lost */
    bool trust;  /* no password is asked for: not a gate */
    int tls_every; /* every nth client by TLS; 0: none */
    unsigned max_failures;
};
extern struct options options;
extern struct statistics statistics;
extern unsigned failures;
extern bool ending;

uint32_t draw(struct client *c, uint32_t n); /* 0..n-1 */
static inline bool one_in(struct client *c, uint32_t n)
{
    return draw(c, n) == 0;
}

void client_connect(struct client *c);
/* The connection ends; the next one is made after a rest. */
void client_leave(struct client *c, bool reset);
void client_events(struct client *c, short events);
/* What must happen without any event: pauses that are over, cuts, cancels, stuck sessions. */
void client_tick(struct client *c, uint64_t now);
short client_wants(const struct client *c);
void cancel_start(struct client *c);
void cancel_events(struct client *c);
void peer_tls_setup(void);

/* One message of the server while scripts run. False: the client was failed. */
bool check_message(struct client *c, char type, const char *body, size_t len);
/* The server closed. */
void check_closed(struct client *c, const char *how);
void note(struct client *c, const char *pattern, ...) __attribute__((format(printf, 2, 3)));
void fail(struct client *c, const char *pattern, ...) __attribute__((format(printf, 2, 3)));

#endif
