/* The state of a client's input.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "session/input.h"

#include <string.h>

#include "base/mem.h"
#include "pg/wire.h"

void input_init(struct client_input *in, size_t held_max)
{
    *in = (struct client_input){.mode = FRAME_PASS};
    buf_init(&in->held, held_max);
}

void input_reset(struct client_input *in)
{
    (void)input_abandon(in);
    buf_wipe(&in->held);
    in->left = 0;
    in->skipping = in->is_canceled = in->has_ended = false;
}

void input_begin(struct client_input *in, uint32_t left, enum frame_mode mode)
{
    in->left = left;
    in->mode = (uint8_t)mode;
}

bool input_abandon(struct client_input *in)
{
    bool half = input_is_half_sent(in);
    mem_free(in->scan);
    in->scan = NULL;
    in->mode = FRAME_DROP;
    return half;
}

bool input_has_request(const struct client_input *in)
{
    size_t there = buf_size(&in->held);
    if (in->left) /* the rest of one */
        return there >= in->left;
    return there >= WIRE_HEADER && there - 1 >= wire_u32(buf_front(&in->held) + 1) && buf_front(&in->held)[0] != 'X';
}

bool input_has_more(const struct client_input *in)
{
    struct text all = buf_text(&in->held);
    for (bool ends = false; !ends;) {
        if (all.len < WIRE_HEADER || all.len - 1 < wire_u32(all.at + 1))
            return false;
        size_t size = (size_t)wire_u32(all.at + 1) + 1;
        ends = memchr("QFS", all.at[0], 3);
        all.at += size;
        all.len -= size;
    }
    return all.len > 0;
}
