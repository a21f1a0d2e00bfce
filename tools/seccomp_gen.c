/* Build tool: writes the sandbox's system call filter as a C table, so that nothing at run time needs libseccomp.
 * usage: seccomp_gen ARCH > seccomp_program.c     (ARCH as libseccomp names it: x86_64, aarch64, ...)
 *
 * Everything is allowed but what is listed: doors out of the namespaces, keyrings, and kernel interfaces with a long record of
 * holes that no coding agent needs.  ENOSYS where callers have a fallback, EPERM elsewhere.  Calls of another architecture (also
 * x32) kill the process, since the table would not see them. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOW32 0xffffffffu
#define NEW_NAMESPACES (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)
#define NEW_TIME_NAMESPACE 0x00000080u
#define HIGHEST_ALLOWED_FAMILY AF_NETLINK

struct refusal {
	const char *name;
	int error;
	int number; /* for calls newer than libseccomp; 0: by name only. From 424 on the numbers are the same everywhere. */
};

static const struct refusal refusals[] = {
	/* keyrings: not in a namespace, so shared with the host's user */
	{ "keyctl", EPERM, 0 }, { "add_key", EPERM, 0 }, { "request_key", EPERM, 0 },
	/* wide kernel interfaces */
	{ "io_uring_setup", ENOSYS, 425 }, { "io_uring_enter", ENOSYS, 426 }, { "io_uring_register", ENOSYS, 427 },
	{ "bpf", EPERM, 0 }, { "userfaultfd", EPERM, 0 }, { "perf_event_open", EPERM, 0 }, { "fanotify_init", EPERM, 0 },
	{ "fanotify_mark", EPERM, 0 }, { "lookup_dcookie", EPERM, 0 }, { "vmsplice", EPERM, 0 }, { "modify_ldt", EPERM, 0 },
	{ "uselib", EPERM, 0 }, { "ustat", EPERM, 0 }, { "sysfs", EPERM, 0 }, { "_sysctl", EPERM, 0 }, { "nfsservctl", EPERM, 0 },
	{ "remap_file_pages", EPERM, 0 }, { "syslog", EPERM, 0 }, { "quotactl", EPERM, 0 }, { "quotactl_fd", EPERM, 443 },
	/* namespaces and mounts; clone3 hides its flags from a filter, and libc falls back to clone */
	{ "clone3", ENOSYS, 435 }, { "setns", EPERM, 0 }, { "mount", EPERM, 0 }, { "umount", EPERM, 0 }, { "umount2", EPERM, 0 },
	{ "pivot_root", EPERM, 0 }, { "chroot", EPERM, 0 }, { "open_tree", EPERM, 428 }, { "move_mount", EPERM, 429 },
	{ "fsopen", EPERM, 430 }, { "fsconfig", EPERM, 431 }, { "fsmount", EPERM, 432 }, { "fspick", EPERM, 433 },
	{ "mount_setattr", EPERM, 442 }, { "open_tree_attr", EPERM, 467 }, { "open_by_handle_at", EPERM, 0 },
	/* the machine */
	{ "kexec_load", EPERM, 0 }, { "kexec_file_load", EPERM, 0 }, { "init_module", EPERM, 0 }, { "finit_module", EPERM, 0 },
	{ "create_module", EPERM, 0 }, { "query_module", EPERM, 0 }, { "get_kernel_syms", EPERM, 0 }, { "delete_module", EPERM, 0 },
	{ "reboot", EPERM, 0 }, { "swapon", EPERM, 0 }, { "swapoff", EPERM, 0 }, { "acct", EPERM, 0 }, { "settimeofday", EPERM, 0 },
	{ "stime", EPERM, 0 }, { "clock_settime", EPERM, 0 }, { "clock_settime64", EPERM, 0 }, { "iopl", EPERM, 0 },
	{ "ioperm", EPERM, 0 }, { "vhangup", EPERM, 0 }, { "move_pages", EPERM, 0 }, { "migrate_pages", EPERM, 0 },
	{ "vm86", EPERM, 0 }, { "vm86old", EPERM, 0 }, { "pciconfig_read", EPERM, 0 }, { "pciconfig_write", EPERM, 0 },
	{ "s390_pci_mmio_read", EPERM, 0 }, { "s390_pci_mmio_write", EPERM, 0 },
};

static int failed(const char *what, int rc)
{
	fprintf(stderr, "seccomp_gen: %s: %s\n", what, strerror(-rc));
	return 1;
}

/* A call that the architecture does not have is nothing to refuse; EFAULT: a bare number cannot be translated when cross building. */
static int is_absent(int rc)
{
	return rc == -EDOM || rc == -EINVAL || rc == -ENOSYS || rc == -EFAULT;
}

static int add_refusals(scmp_filter_ctx ctx)
{
	for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
		const struct refusal *r = &refusals[i];
		int number = seccomp_syscall_resolve_name(r->name);

		if (number == __NR_SCMP_ERROR)
			number = r->number;
		if (number == 0)
			continue;
		int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO((unsigned)r->error), number, 0);
		if (rc < 0 && !is_absent(rc))
			return failed(r->name, rc);
	}
	return 0;
}

/* One rule a flag: a filter cannot say "any of these bits" in one comparison. */
static int add_flags(scmp_filter_ctx ctx, int number, unsigned arg, unsigned flags)
{
	for (unsigned bit = 1; bit; bit <<= 1) {
		if (!(flags & bit))
			continue;
		int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), number, 1, SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, bit, bit));
		if (rc < 0)
			return failed("namespace flags", rc);
	}
	return 0;
}

/* Unix, IPv4, IPv6 and netlink (libc asks it for interfaces) are allowed; vsock, packet, alg, bluetooth and the rest are not. */
static int add_families(scmp_filter_ctx ctx, int number)
{
	static const int allowed[] = { AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };
	int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), number, 1, SCMP_A0(SCMP_CMP_GT, HIGHEST_ALLOWED_FAMILY, 0));

	for (int family = 0; rc >= 0 && family <= HIGHEST_ALLOWED_FAMILY; family++) {
		int known = 0;

		for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
			known |= allowed[i] == family;
		if (!known)
			rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), number, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family, 0));
	}
	return rc < 0 ? failed("address families", rc) : 0;
}

/* Typing into a terminal that is shared with somebody outside. The kernel looks at 32 bits only, so the filter must too. */
static int add_ioctls(scmp_filter_ctx ctx)
{
	static const unsigned requests[] = { TIOCSTI, TIOCLINUX };

	for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, LOW32, requests[i]));
		if (rc < 0)
			return failed("ioctl", rc);
	}
	return 0;
}

static int write_table(scmp_filter_ctx ctx)
{
	FILE *f = tmpfile();
	struct sock_filter one;
	unsigned n = 0;
	int rc = f ? seccomp_export_bpf(ctx, fileno(f)) : -errno;

	if (rc < 0)
		return failed("export", rc);
	rewind(f);
	printf("/* Made by tools/seccomp_gen.c at build time. */\n#include \"sandbox/filter.h\"\n\nconst struct sock_filter seccomp_program[] = {\n");
	for (; fread(&one, sizeof one, 1, f) == 1; n++)
		printf("\t{ 0x%02x, %u, %u, 0x%08x },\n", one.code, one.jt, one.jf, one.k);
	printf("};\nconst unsigned short seccomp_program_len = %u;\n", n);
	fclose(f);
	return n > 0 && fflush(stdout) == 0 ? 0 : 1;
}

static int set_up(scmp_filter_ctx ctx, const char *arch)
{
	uint32_t token = seccomp_arch_resolve_name(arch);
	int rc = token ? seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) : -EINVAL;

	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree: few comparisons for each call */
	if (rc == 0 && token != seccomp_arch_native()) {
		rc = seccomp_arch_add(ctx, token);
		if (rc == 0)
			rc = seccomp_arch_remove(ctx, seccomp_arch_native());
	}
	return rc < 0 ? failed(arch, rc) : 0;
}

static int generate(scmp_filter_ctx ctx, const char *arch)
{
	unsigned clone_flags = (unsigned)NEW_NAMESPACES, clone_arg = strncmp(arch, "s390", 4) == 0 ? 1 : 0;

	/* The time namespace's bit belongs to the exit signal in clone's flags; unshare alone can ask for it. */
	return set_up(ctx, arch) || add_refusals(ctx) || add_flags(ctx, SCMP_SYS(clone), clone_arg, clone_flags) ||
	       add_flags(ctx, SCMP_SYS(unshare), 0, clone_flags | NEW_TIME_NAMESPACE) || add_families(ctx, SCMP_SYS(socket)) ||
	       add_families(ctx, SCMP_SYS(socketpair)) || add_ioctls(ctx) || write_table(ctx);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: seccomp_gen ARCH\n");
		return 2;
	}
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	if (!ctx)
		return failed("init", -ENOMEM);
	int rc = generate(ctx, argv[1]);
	seccomp_release(ctx);
	return rc;
}
