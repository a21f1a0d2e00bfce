/* What signalbox-unpack gives up before it reads: the network, mounts, other processes and users (namespaces of its own), every right
 * (capabilities, no_new_privs), memory and time without end (rlimits), and at last every system call but those that read what is open,
 * write what is open, and manage memory. */
#include "source/unpack.h"
#include "base/check.h"
#include "base/cleanup.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0 /* sanitizers need terabytes of address space, and files when they report */
#endif

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#else
#error "the filter's table knows x86_64 and aarch64"
#endif

/* What is here is allowed; libraries that look for a file or the time zone get EPERM and go on without; all else ends the process. */
static const int allowed[] = {
	SYS_read, SYS_pread64, SYS_lseek, SYS_write, SYS_writev, SYS_close, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_futex,
	SYS_exit, SYS_exit_group, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_fstat, SYS_getrandom, SYS_clock_gettime,
	SYS_getpid, SYS_gettid, SYS_tgkill,
};
static const int refused[] = {
	SYS_openat, SYS_newfstatat, SYS_readlinkat, SYS_faccessat, SYS_getcwd, SYS_uname, SYS_ioctl, SYS_fcntl, SYS_sched_getaffinity, SYS_sysinfo,
	SYS_prlimit64,
#ifdef SYS_open
	SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink,
#endif
};
static const int mapping[] = { SYS_mmap, SYS_mprotect }; /* allowed unless the memory could be executed */

#define PROGRAM_MAX (5 + 2 * (ARRAY_SIZE(allowed) + ARRAY_SIZE(refused)) + 5 * ARRAY_SIZE(mapping))

struct program {
	struct sock_filter v[PROGRAM_MAX];
	unsigned short n;
};

static void put(struct program *p, struct sock_filter op)
{
	CHECK(p->n < PROGRAM_MAX);
	p->v[p->n++] = op;
}

static void put_rule(struct program *p, int nr, unsigned action)
{
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 1));
	put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

static void put_mapping_rule(struct program *p, int nr)
{
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 4));
	put(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])));
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1));
	put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

static enum err_code close_calls(struct error *e)
{
	struct program p = { .n = 0 };

	put(&p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
	put_rule(&p, OUR_ARCH, 0);
	p.v[1].jt = 1; /* ours: over the end */
	p.v[1].jf = 0;
	p.v[2].k = SECCOMP_RET_KILL_PROCESS;
	put(&p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		put_rule(&p, allowed[i], SECCOMP_RET_ALLOW);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		put_rule(&p, refused[i], SECCOMP_RET_ERRNO | EPERM);
	for (size_t i = 0; i < ARRAY_SIZE(mapping); i++)
		put_mapping_rule(&p, mapping[i]);
	put(&p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	struct sock_fprog program = { .len = p.n, .filter = p.v };
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return error_errno(e, "filter system calls");
	return ERR_OK;
}

static enum err_code close_limits(struct error *e)
{
	static const struct { __rlimit_resource_t what; rlim_t most; } limits[] = {
		{ RLIMIT_CORE, 0 }, { RLIMIT_CPU, UNPACK_CPU_S }, { RLIMIT_NPROC, 0 }, { RLIMIT_FSIZE, 0 }, { RLIMIT_NOFILE, 8 }, { RLIMIT_AS, UNPACK_MEMORY_MAX },
	};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct rlimit l = { limits[i].most, limits[i].most };

		if (SANITIZED && limits[i].what == RLIMIT_AS)
			continue;
		if (setrlimit(limits[i].what, &l) < 0)
			return error_errno(e, "set a limit of the unpacker");
	}
	return ERR_OK;
}

static enum err_code close_rights(struct error *e)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	if (syscall(SYS_capset, &head, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return error_errno(e, "give up the unpacker's rights");
	return ERR_OK;
}

enum err_code unpack_walls_close(struct error *e)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID) < 0) {
		error_errno(e, "make namespaces for the unpacker");
		error_hint(e, "allow unprivileged user namespaces; `signalbox doctor` says how");
		return e ? e->code : ERR_IO;
	}
	TRY(close_limits(e));
	TRY(close_rights(e));
	return SANITIZED ? ERR_OK : close_calls(e);
}
