/* Counting what a session holds.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/memory.h"

#include "base/budget.h"

enum { UNNAMED_KEPT = 16 * 1024 }; /* the longest unnamed statement that is known to be on an idle connection */

static size_t in_steps(size_t bytes)
{
    return bytes <= MEMORY_FREE ? 0 : (bytes - MEMORY_FREE + MEMORY_STEP - 1) / MEMORY_STEP * MEMORY_STEP;
}

bool memory_charge(struct session *s, size_t more_input, size_t more)
{
    if (!s->meter)
        return true; /* the console */
    size_t input = buf_size(&s->input.held) + more_input;
    if (input < s->input.held.cap)
        input = s->input.held.cap; /* buffers double */
    size_t variables = s->vars ? s->vars->len : 0;
    if (s->startup_vars && s->startup_vars != s->vars) /* settings that its role had among them */
        variables += s->startup_vars->len;
    size_t wanted = in_steps(input) + in_steps(s->names.held + variables + more);
    if (wanted > s->charged && !budget_take(meter_memory(s->meter), wanted - s->charged))
        return false;
    if (wanted < s->charged)
        budget_give(meter_memory(s->meter), s->charged - wanted);
    s->charged = wanted;
    return true;
}

void memory_count_refusal(struct session *s)
{
    counter_add(s->home->counters, COUNTER_MEMORY_REFUSED, 1);
    meter_refused_memory(s->meter);
}

void memory_give_back(struct session *s)
{
    if (s->charged)
        budget_give(meter_memory(s->meter), s->charged);
    s->charged = 0;
}

size_t memory_charged(const struct session *s)
{
    return s->charged + s->client.charged + (s->backend ? s->backend->stream.charged : 0);
}

void memory_settle(struct session *s)
{
    if (s->charged)
        (void)memory_charge(s, 0, 0);
}

void memory_join(struct session *s)
{
    if (!s->meter)
        return; /* the console */
    struct budget *memory = meter_memory(s->meter);
    if (!s->client.memory && s->client.phase != STREAM_CLOSED)
        stream_charge_to(&s->client, memory);
    if (s->backend && !s->backend->stream.memory && s->backend->stream.phase != STREAM_CLOSED)
        stream_charge_to(&s->backend->stream, memory);
    if (s->pool && !s->pool->kept.budget)
        kept_charge_to(&s->pool->kept, memory);
}

void memory_leave(struct session *s)
{
    struct backend *b = s->backend;
    prepared_trim(&b->prepared);
    if (b->unnamed && b->unnamed->text->tail_len > UNNAMED_KEPT) {
        statement_drop(&b->unnamed);
        b->unnamed_unsure = true;
    }
}
