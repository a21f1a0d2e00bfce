/* See sys.h. */
#include "sandbox/init/sys.h"

#include <linux/time_types.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <signal.h>
#include <time.h>

void *sys_pages(size_t n)
{
	long p = sys6(SYS_mmap, 0, (long)n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p < 0 && p > -4096 ? NULL : (void *)p;
}

long sys_poll(struct pollfd *fds, unsigned n, int timeout_ms)
{
	struct __kernel_timespec t = { .tv_sec = timeout_ms / 1000, .tv_nsec = (long long)(timeout_ms % 1000) * 1000000 };

	return sys5(SYS_ppoll, fds, n, timeout_ms < 0 ? NULL : &t, NULL, KERNEL_SIGSET_BYTES);
}

_Noreturn void sys_exit(int status)
{
	for (;;)
		(void)sys1(SYS_exit_group, status);
}

int64_t sys_now_ms(void)
{
	struct __kernel_timespec t = { 0, 0 };

	(void)sys2(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void sys_block(uint64_t signals)
{
	(void)sys4(SYS_rt_sigprocmask, SIG_SETMASK, &signals, NULL, KERNEL_SIGSET_BYTES);
}

long sys_signalfd(uint64_t signals)
{
	return sys4(SYS_signalfd4, -1, &signals, KERNEL_SIGSET_BYTES, SFD_CLOEXEC | SFD_NONBLOCK);
}

#ifdef INIT_FREESTANDING
/* The compiler calls these for copies and zeroing; the empty asm keeps it from making the loops into calls of themselves. */
void *memset(void *to, int byte, size_t n);
void *memcpy(void *restrict to, const void *restrict from, size_t n);

void *memset(void *to, int byte, size_t n)
{
	for (char *p = to; n--; p++) {
		*p = (char)byte;
		__asm__ volatile("");
	}
	return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	const char *f = from;

	for (char *p = to; n--; p++, f++) {
		*p = *f;
		__asm__ volatile("");
	}
	return to;
}

/* The kernel leaves argc, argv and the environment on the stack. */
_Noreturn void init_entry(long *stack);
void init_entry(long *stack)
{
	char **argv = (char **)(stack + 1);

	sys_exit(init_main(argv, argv + stack[0] + 1));
}

#ifdef __x86_64__
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall init_entry\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tb init_entry\n");
#endif

#else
extern char **environ;

int main(int argc, char **argv)
{
	(void)argc;
	return init_main(argv, environ);
}
#endif
