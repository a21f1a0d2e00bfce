/* The few system calls of signalbox-init, each giving its result or -errno, with no C library behind them: starting a static glibc
 * program costs ten times as much as all that init does (its CPU detection traps in virtual machines).  With INIT_FREESTANDING the
 * program also brings its own entry; without it, an ordinary main() is called by the C library, and all else is the same. */
#pragma once
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#if defined INIT_FREESTANDING && defined __x86_64__
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
}
#elif defined INIT_FREESTANDING && defined __aarch64__
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#undef INIT_FREESTANDING
#include <errno.h>
#include <unistd.h>
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
	long ret = syscall(n, a, b, c, d, e, f);

	return ret < 0 ? -errno : ret;
}
#endif

#define SYS_ARG(x) ((long)(x))
#define sys0(n) sys6(n, 0, 0, 0, 0, 0, 0)
#define sys1(n, a) sys6(n, SYS_ARG(a), 0, 0, 0, 0, 0)
#define sys2(n, a, b) sys6(n, SYS_ARG(a), SYS_ARG(b), 0, 0, 0, 0)
#define sys3(n, a, b, c) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), 0, 0, 0)
#define sys4(n, a, b, c, d) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), 0, 0)
#define sys5(n, a, b, c, d, e) sys6(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), 0)

#define KERNEL_SIGSET_BYTES 8

void *sys_pages(size_t n); /* zeroed; NULL: none */
long sys_poll(struct pollfd *fds, unsigned n, int timeout_ms);
_Noreturn void sys_exit(int status);
int64_t sys_now_ms(void);
void sys_block(uint64_t signals);	 /* the whole mask: bit N-1 is signal N */
long sys_signalfd(uint64_t signals);

int init_main(char **argv, char **environment);
