/* The control thread: configuration, listeners, signals, discovery, health, the end.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_CONTROL_H
#define POSTERN_CONTROL_H

struct conf;
struct generation;

/* Runs the gate until a signal ends it; returns the exit status. Takes the references. */
int control_run(const char *config_path, const struct conf *conf, struct generation *generation);

#endif
