/* Shared by the fuzzers: libFuzzer's entry, or (with -DREPLAY) a main() that reads inputs from files or, packed
 * as u32 size and bytes, from stdin. One source file of each fuzzer includes this. */
#ifndef CODEFORGE_FUZZ_H
#define CODEFORGE_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDS(condition)                                                                             \
    do {                                                                                             \
        if (!(condition)) {                                                                          \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);           \
            abort();                                                                                 \
        }                                                                                            \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef REPLAY

static void run_one(FILE *from, size_t size)
{
    uint8_t *data = malloc(size ? size : 1); /* of exactly that size, so that a read beyond it is found */
    if (!data || fread(data, 1, size, from) != size)
        exit(2);
    if (getenv("FUZZ_PLANT") && size == 5 && memcmp(data, "PLANT", 5) == 0)
        printf("%d\n", ((volatile uint8_t *)data)[size]); /* shows that faults are found */
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++, count++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file || fseek(file, 0, SEEK_END)) {
            perror(argv[i]);
            return 2;
        }
        long size = ftell(file);
        rewind(file);
        run_one(file, (size_t)size);
        fclose(file);
    }
    uint8_t head[4];
    for (; argc == 1 && fread(head, 1, sizeof head, stdin) == sizeof head; count++)
        run_one(stdin, (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24);
    printf("%d inputs\n", count);
    return 0;
}

#endif

#endif
