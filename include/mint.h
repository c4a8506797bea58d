/* Commands beside the gateway, for development and tests: `postern token` mints a token,
 * `postern jwks` prints a key set, `postern scram` prints a verifier for the users file.
 * Each takes its own arguments (argv[0] is the command's name) and returns an exit status.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef POSTERN_MINT_H
#define POSTERN_MINT_H

int mint_main(int argc, char **argv);
int jwks_main(int argc, char **argv);
int scram_main(int argc, char **argv);

#endif
