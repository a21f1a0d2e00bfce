/* The system call filter as a table of classic BPF, made at build time by tools/seccomp_gen.c. */
#pragma once
#include <linux/filter.h>

extern const struct sock_filter seccomp_program[];
extern const unsigned short seccomp_program_len;
