/* The control thread: configuration, listeners, signals, discovery, health, the end.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_CONTROL_H
#define POSTERN_CONTROL_H

#include "io/mailbox.h"

struct conf;
struct generation;

/* Runs the gate until a signal ends it; returns the exit status. Takes the references. */
int control_run(const char *config_path, const struct conf *conf, struct generation *generation);
/* Delivers a struct job of the console: RELOAD. On the control thread. */
void control_reload_job(struct mail *m, void *receiver);

#endif
