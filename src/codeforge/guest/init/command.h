/* argv, environment and directory of the next process. */
#ifndef CODEFORGE_COMMAND_H
#define CODEFORGE_COMMAND_H

#include <stddef.h>
#include <stdint.h>

enum { COMMAND_BYTES = 256 * 1024, COMMAND_STRINGS = 4096, CWD_BYTES = 256 };

extern struct command {
    size_t used;
    int argc, envc;
    char *argv[COMMAND_STRINGS + 1];
    char *env[COMMAND_STRINGS + 1];
    char cwd[CWD_BYTES];
    char bytes[COMMAND_BYTES];
} command; /* gathered from the host's frames; starting it clears it */

void command_clear(struct command *c);
/* Take ARG, ENV or CWD. Return NULL or what is wrong. */
const char *command_arg(struct command *c, const uint8_t *s, size_t size);
const char *command_env(struct command *c, const uint8_t *s, size_t size);
const char *command_cwd(struct command *c, const uint8_t *s, size_t size);
/* Writes "argc\0arg\0...KEY=VALUE\0..." and returns its size, or 0 if it does not fit. */
size_t command_message(const struct command *c, char *into, size_t size);
/* Executes the command in this process. Returns errno; negative if the directory is the reason. */
int command_exec(struct command *c);

#endif
