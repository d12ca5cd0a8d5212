/* How a program of ours gives up. init (channel.c) and enter each define fail(). */
#ifndef CODEFORGE_FAIL_H
#define CODEFORGE_FAIL_H

enum { EXIT_FAILED = 70 /* sysexits.h: internal software error */ };

__attribute__((format(printf, 1, 2))) _Noreturn void fail(const char *format, ...);

#endif
