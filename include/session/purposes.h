/* One file that two settings name: a log in a users file's place would be written over it.
 * Thread: control.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_SESSION_PURPOSES_H
#define POSTERN_SESSION_PURPOSES_H

#include "conf/conf.h"

/* Collects faults where one of the two is written, and advice where both are read as something else. The same
 * file under two names is one; devices, which several may write, are left out. */
void purposes_check(const struct conf *conf, struct conf_faults *faults);

#endif
