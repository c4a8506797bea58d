/* Arguments, process limits, exit status.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/log.h"
#include "conf/conf.h"
#include "control.h"
#include "gate/audit.h"
#include "mint.h"
#include "session/generation.h"

static const char usage[] =
    "usage: postern [--config FILE] [--check]\n"
    "       postern token|jwks|scram --help\n"
    "\n"
    "  -c, --config FILE   configuration (default " SYSCONFDIR "/postern/postern.ini)\n"
    "  -t, --check         read the configuration as a start or a reload would, say every fault,\n"
    "                      and exit: 0 when there is none\n"
    "      --example       print a configuration with every setting and its default\n"
    "      --manual        print the manual page postern.ini(5)\n"
    "      --reasons       print the events of the audit trail and the reasons of refusals\n"
    "  -V, --version       print the version\n"
    "  -h, --help          print this\n"
    "\n"
    "SIGHUP reads the configuration again, SIGUSR1 opens log files anew, SIGTERM lets\n"
    "transactions finish and ends, SIGINT ends at once.\n";

/* Memory holds passwords and tokens: no core file, no ptrace by others of the same user. */
static void protect_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(ENABLE_FAULTS)
    struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0);
#endif
}

static void raise_descriptors(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
}

static int print(bool (*write)(struct buf *))
{
    struct buf out;
    buf_init(&out, 1 << 20);
    bool ok = write(&out) && fwrite(out.at, 1, out.len, stdout) == out.len && fflush(stdout) == 0;
    buf_free(&out);
    return ok ? 0 : 1;
}

static void print_lines(const struct buf *lines, const char *before)
{
    struct text rest = buf_text(lines), line;
    while (text_split(&rest, '\n', &line))
        if (line.len)
            fprintf(stderr, "%s" TEXT_FMT "\n", before, TEXT_ARG(line));
}

/* NULL after every fault was printed. A start leaves advice to the log. */
static struct generation *load(const char *path, bool check)
{
    struct conf_faults faults;
    conf_faults_init(&faults);
    struct generation *g = generation_read(path, NULL, &faults);
    print_lines(&faults.text, "");
    if (!g || check)
        print_lines(&faults.advice, "warning: ");
    if (!g)
        fprintf(stderr, "postern: %s: %u fault%s\n", path, faults.count, faults.count == 1 ? "" : "s");
    conf_faults_free(&faults);
    return g;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 't'},
        {"example", no_argument, NULL, 'e'},      {"manual", no_argument, NULL, 'm'},
        {"reasons", no_argument, NULL, 'r'},     
        {"version", no_argument, NULL, 'V'},      {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    const char *path = SYSCONFDIR "/postern/postern.ini";
    bool check = false;
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "token") == 0)
        return mint_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "jwks") == 0)
        return jwks_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "scram") == 0)
        return scram_main(argc - 1, argv + 1);
    for (int c; (c = getopt_long(argc, argv, "c:tVh", options, NULL)) != -1;) {
        switch (c) {
        case 'c':
            path = optarg;
            break;
        case 't':
            check = true;
            break;
        case 'e':
            return print(conf_write_example);
        case 'm':
            return print(conf_write_manual);
        case 'r':
            return print(audit_write_reference);
        case 'V':
            printf("postern %s\n", PACKAGE_VERSION);
            return 0;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "postern: unexpected argument \"%s\"\n%s", argv[optind], usage);
        return 2;
    }
    /* One that comes before there is anybody to take it ends nothing. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    protect_memory();
    raise_descriptors();
    struct generation *g = load(path, check);
    if (!g)
        return 1;
    if (check) {
        printf("%s: no faults\n", path);
        generation_unref(g);
        return 0;
    }
    log_start();
    int status = control_run(path, conf_ref(g->conf), g);
    log_stop();
    return status;
}
