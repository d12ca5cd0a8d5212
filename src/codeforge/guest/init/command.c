/* argv, environment and directory of the next process, in one fixed arena. */
#include "command.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

struct command command;

void command_clear(struct command *c)
{
    c->used = 0;
    c->argc = c->envc = 0;
    c->argv[0] = c->env[0] = NULL;
    c->cwd[0] = 0;
}

static const char *append(struct command *c, char **list, int *count, const uint8_t *s, size_t size)
{
    if (memchr(s, 0, size))
        return "an argument or variable holds a NUL byte";
    if (*count == COMMAND_STRINGS || size + 1 > sizeof c->bytes - c->used)
        return "too many arguments or variables";
    char *copy = c->bytes + c->used;
    memcpy(copy, s, size);
    copy[size] = 0;
    c->used += size + 1;
    list[(*count)++] = copy;
    list[*count] = NULL;
    return NULL;
}

const char *command_arg(struct command *c, const uint8_t *s, size_t size)
{
    return append(c, c->argv, &c->argc, s, size);
}

const char *command_env(struct command *c, const uint8_t *s, size_t size)
{
    if (size == 0 || *s == '=' || !memchr(s, '=', size))
        return "a variable is not KEY=VALUE";
    return append(c, c->env, &c->envc, s, size);
}

const char *command_cwd(struct command *c, const uint8_t *s, size_t size)
{
    if (memchr(s, 0, size) || size >= sizeof c->cwd)
        return "a directory's name is not usable";
    memcpy(c->cwd, s, size);
    c->cwd[size] = 0;
    return NULL;
}

size_t command_message(const struct command *c, char *into, size_t size)
{
    int n = snprintf(into, size, "%d", c->argc);
    size_t used = (size_t)n + 1;
    if (n < 0 || used + c->used > size)
        return 0;
    for (int i = 0; i < c->argc; i++)
        used += (size_t)(stpcpy(into + used, c->argv[i]) - (into + used)) + 1;
    for (int i = 0; i < c->envc; i++)
        used += (size_t)(stpcpy(into + used, c->env[i]) - (into + used)) + 1;
    return used;
}

static bool same_key(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && b[n] == '=';
}

int command_exec(struct command *c)
{
    /* The image's environment, and the request's on top: one entry for each key, and the last one counts. */
    static char *merged[2 * COMMAND_STRINGS + 1];
    int count = 0;
    char **sources[] = {environ, c->env};
    for (int s = 0; s < 2; s++)
        for (char **e = sources[s]; *e; e++) {
            int i = 0;
            while (i < count && !same_key(*e, merged[i]))
                i++;
            if (i == 2 * COMMAND_STRINGS)
                return E2BIG;
            merged[i] = *e;
            if (i == count)
                count++;
        }
    if (c->cwd[0] && chdir(c->cwd))
        return -errno;
    execvpe(c->argv[0], c->argv, merged); /* with init's own PATH: the request's PATH is for the program */
    return errno;
}
