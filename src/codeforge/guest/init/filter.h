/* The filter of system calls. */
#ifndef CODEFORGE_FILTER_H
#define CODEFORGE_FILTER_H

#include <stdbool.h>

enum filter_for {
    ENGINE,      /* a whole sandbox, init included: narrows the kernel's surface only */
    RUN,         /* a process in it: keeps init out of reach as well */
    RUN_TEMPLATE /* a template and its runs: keeps init and this process out of reach */
};

/* Filters this process and its descendants. false: see errno. */
bool filter_install(enum filter_for whom);

#endif
