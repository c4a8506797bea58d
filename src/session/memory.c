/* Counting what a session holds.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/memory.h"

#include "base/budget.h"
#include "session/session.h"

static size_t in_steps(size_t bytes)
{
    return bytes <= MEMORY_FREE ? 0 : (bytes - MEMORY_FREE + MEMORY_STEP - 1) / MEMORY_STEP * MEMORY_STEP;
}

bool memory_charge(struct session *s, size_t more_input, size_t more_statements)
{
    if (!s->meter)
        return true; /* the console */
    size_t input = buf_size(&s->input.held) + more_input;
    if (input < s->input.held.cap)
        input = s->input.held.cap; /* buffers double */
    size_t wanted = in_steps(input) + in_steps(s->names.bytes + more_statements);
    if (wanted > s->charged && !budget_take(meter_memory(s->meter), wanted - s->charged)) {
        counter_add(s->home->counters, COUNTER_MEMORY_REFUSED, 1);
        return false;
    }
    if (wanted < s->charged)
        budget_give(meter_memory(s->meter), s->charged - wanted);
    s->charged = wanted;
    return true;
}

void memory_give_back(struct session *s)
{
    if (s->charged)
        budget_give(meter_memory(s->meter), s->charged);
    s->charged = 0;
}
