/* Cleans the sandbox between two runs. */
#ifndef CODEFORGE_CLEAN_H
#define CODEFORGE_CLEAN_H

#include <stdbool.h>

void clean_remember(void); /* how the sandbox is before the first run */
/* Removes what the run left, and compares. false: something differs, do not use the sandbox again. */
bool clean(bool template_stays);

#endif
