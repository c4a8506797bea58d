/* The startup parameter `options`: the same settings and the same sentences as the server's.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "pg/options.h"

#include <string.h>

#include "base/buf.h"
#include "tap.h"

static char pairs[1024];

static void note(void *arg, struct text name, struct text value)
{
    size_t n = strlen(pairs);
    (void)arg;
    snprintf(pairs + n, sizeof(pairs) - n, "[%.*s|%.*s]", (int)name.len, name.at, (int)value.len, value.at);
}

#define INVALID "invalid command-line argument for server process: "

int main(void)
{
    static const struct {
        const char *in, *out, *fault;
    } cases[] = {
        {"", "", ""},
        {"   ", "", ""},
        {"-c a=b", "[a|b]", ""},
        {"-ca=b", "[a|b]", ""},
        {"--a=b", "[a|b]", ""},
        {"--statement-timeout=5s -c search_path=x", "[statement_timeout|5s][search_path|x]", ""},
        {"\t-c\n a=b ", "[a|b]", ""},
        {"-c a=one\\ word", "[a|one word]", ""},
        {"-c a=back\\\\slash", "[a|back\\slash]", ""},
        {"-c a=b\\", "[a|b\\]", ""},
        {"-c a=", "[a|]", ""},
        {"-c a=b=c-d", "[a|b=c-d]", ""},
        {"-c dotted.name=1", "[dotted.name|1]", ""},
        {"-O -S 64 -fs -f h", "[allow_system_table_mods|true][work_mem|64][enable_seqscan|false][enable_hashjoin|false]", ""},
        {"-OPS64", "[allow_system_table_mods|true][ignore_system_indexes|true][work_mem|64]", ""},
        {"-tpa -t pl -te -s", "[log_parser_stats|true][log_planner_stats|true][log_executor_stats|true][log_statement_stats|true]", ""},
        {"-e -F", "[datestyle|euro][fsync|false]", ""},
        {"-d 2", "[log_min_messages|debug2][log_statement|all]", ""},
        {"-d0", "[log_min_messages|notice]", ""},
        {"-E -j -n -T", "", ""},
        /* What looks like a setting is a switch's argument, and the other way round. */
        {"-D -c a=b", "", INVALID "a=b"},
        {"-Oc a=b", "[allow_system_table_mods|true][a|b]", ""},
        {"-c", "", INVALID "-c"},
        {"-c a", "", "-c a requires a value"},
        {"-c =b", "", "-c =b requires a value"},
        {"--a-b", "", "--a-b requires a value"},
        {"--=b", "", "--=b requires a value"},
        {"--", "", INVALID "--"},
        {"-", "", INVALID "-"},
        {"-x", "", INVALID "-x"},
        {"-Oy", "[allow_system_table_mods|true]", INVALID "-Oy"},
        {"-f q", "", INVALID "q"},
        {"-c a=b word", "[a|b]", INVALID "word"},
        {"a=b", "", INVALID "a=b"},
    };
    char fault[OPTIONS_FAULT];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        pairs[0] = '\0';
        bool good = options_each(text_of(cases[i].in), note, NULL, fault);
        is_int(good, cases[i].fault[0] == '\0', "options '%s'", cases[i].in);
        is_text(pairs, cases[i].out, "options '%s': the settings", cases[i].in);
        is_text(fault, cases[i].fault, "options '%s': the fault", cases[i].in);
    }
    pairs[0] = '\0';
    ok(options_each(TEXT("-c a=\0b"), note, NULL, fault), "a NUL is a byte like others");
    char longer[400];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    ok(!options_each(text_of(longer), note, NULL, fault) && strlen(fault) < sizeof(fault), "a long word is cut in the sentence");
    struct buf again;
    buf_init(&again, 256);
    ok(options_put(&again, TEXT("a"), TEXT("one \\ word")) && options_put(&again, TEXT("b"), TEXT("")) &&
           text_is(buf_text(&again), "-c a=one\\ \\\\\\ word -c b="), "settings become options");
    pairs[0] = '\0';
    ok(options_each(buf_text(&again), note, NULL, fault), "which can be read");
    is_text(pairs, "[a|one \\ word][b|]", "and are the same");
    buf_free(&again);
    return tap_done();
}
