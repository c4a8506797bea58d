/* Whose numbers currval() gives.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/sequences.h"

#include "session/relay.h"

bool sequences_lent(struct session *s)
{
    s->strange_numbers = !s->ask.is_own && !s->pool->reads_sequences;
    return !s->ask.is_own && s->pool->reads_sequences;
}

static void forgotten(void *arg, struct backend *b, const struct server_error *error, bool lost)
{
    struct session *s = arg;
    b->numbers_stay = s->strange_numbers = error != NULL;
    relay_tuned(s, b, NULL, lost);
}

bool sequences_are_own(struct session *s)
{
    static const struct task_ops ops = {NULL, forgotten};
    if (!s->is_transaction_mode || !s->pins || !s->strange_numbers || s->backend->numbers_stay || !backend_is_clean(s->backend))
        return true;
    session_become(s, SESSION_TUNING);
    backend_run(s->backend, TEXT("DISCARD SEQUENCES"), &ops, s);
    return false;
}

bool sequences_may_run(struct session *s, uint32_t effects)
{
    if (!(effects & SQL_SEQUENCE_READ) || !s->strange_numbers || s->backend->owed.status != 'I' || !backend_is_clean(s->backend))
        return true;
    s->strange_numbers = false;
    relay_tune(s, TEXT("DISCARD SEQUENCES"));
    return false;
}

void sequences_run(struct session *s, uint32_t effects)
{
    if (effects & SQL_SEQUENCE)
        s->draws_numbers = true;
    else if ((effects & SQL_SEQUENCE_READ) && !s->draws_numbers)
        s->pool->reads_sequences = s->reads_numbers = true;
}

void sequences_prepared(struct session *s, uint32_t effects)
{
    if ((effects & SQL_SEQUENCE_READ) && !s->draws_numbers)
        s->pool->reads_sequences = s->reads_numbers = true;
}

void sequences_transaction_over(struct session *s)
{
    /* DEALLOCATE of the statement that has drawn them does not end it. */
    bool goes_on = s->keeps_numbers && (s->pin_effects & PIN_PREPARE);
    s->keeps_numbers = s->pool->reads_sequences && (s->draws_numbers || s->reads_numbers || goes_on);
    s->draws_numbers = s->reads_numbers = false;
}
