/* Holds a configuration against the machine it is to run on: folders, addresses, dates of
 * certificates, the system user, open files, memory.
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_MACHINE_H
#define POSTERN_SESSION_MACHINE_H

#include "conf/conf.h"

/* Collects faults, and advice about what works and is unwise. Changes nothing, opens no port that
 * stays open and makes no file; so a port that is taken is found only by who opens it. */
void machine_check(const struct conf *conf, struct conf_faults *faults);

/* The first descriptor that is not for clients (reserved_descriptors, under the present limit of open files). */
int machine_ceiling(const struct conf *conf);

#endif
