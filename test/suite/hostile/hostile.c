/* A hostile agent: tries one door after the other and says of each "refused NAME" or "OPEN NAME".  Ends with the number of open ones.
 * Run inside a sandbox; outside one, nearly everything is open.  Arguments: the name of the abstract socket on which its driver
 * listens in the host's network namespace, and host paths that must not be visible. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECT_MS 300

typedef bool attempt_fn(void); /* true: it worked, which is bad */

static bool connects(int family, int type, const struct sockaddr *a, socklen_t n)
{
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error = 0;
	socklen_t size = sizeof error;

	if (fd < 0)
		return false;
	int rc = connect(fd, a, n);
	if (rc < 0 && errno == EINPROGRESS) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		/* No answer at all still means that packets left. */
		rc = poll(&p, 1, CONNECT_MS) == 0 || (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && (error == 0 || error == ECONNREFUSED)) ? 0 : -1;
	}
	close(fd);
	return rc == 0;
}

static bool connects4(const char *address, uint16_t port, int type)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, address, &a.sin_addr);
	return connects(AF_INET, type, (const struct sockaddr *)&a, sizeof a);
}

static bool connects6(const char *address)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(443) };

	inet_pton(AF_INET6, address, &a.sin6_addr);
	return connects(AF_INET6, SOCK_STREAM, (const struct sockaddr *)&a, sizeof a);
}

static bool ipv4_tcp(void) { return connects4("192.0.2.1", 443, SOCK_STREAM) || connects4("8.8.8.8", 53, SOCK_STREAM); }
static bool ipv4_udp(void) { return connects4("8.8.8.8", 53, SOCK_DGRAM); }
static bool ipv6_tcp(void) { return connects6("2001:4860:4860::8888"); }
static bool metadata(void) { return connects4("169.254.169.254", 80, SOCK_STREAM); }
static bool docker_host(void) { return connects4("172.17.0.1", 80, SOCK_STREAM); }

static bool has_family(int family, int type)
{
	int fd = socket(family, type, 0);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static bool vsock(void) { return has_family(AF_VSOCK, SOCK_STREAM) || has_family(AF_VSOCK, SOCK_DGRAM); }
static bool vsock_high_bits(void) { return syscall(SYS_socket, 0x100000000L | AF_VSOCK, SOCK_STREAM, 0) >= 0; }
static bool packet_socket(void) { return has_family(AF_PACKET, SOCK_RAW); }
static bool raw_socket(void) { return has_family(AF_INET, SOCK_RAW); }
static bool alg_socket(void) { return has_family(AF_ALG, SOCK_SEQPACKET); }
static bool bluetooth(void) { return has_family(AF_BLUETOOTH, SOCK_RAW); }
static bool key_socket(void) { return has_family(AF_KEY, SOCK_RAW); }

static const char *driver = ""; /* listens on this name in the host's network namespace */

static bool abstract_socket(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "%s", driver);

	return connects(AF_UNIX, SOCK_STREAM, (const struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n));
}

static bool keyring(void) { return syscall(SYS_keyctl, 0, -3, 1) >= 0; }
static bool key_add(void) { return syscall(SYS_add_key, "user", "x", "y", 1, -3) >= 0; }
static bool key_request(void) { return syscall(SYS_request_key, "user", "x", NULL, -3) >= 0; }

static bool io_uring(void)
{
	char params[256] = { 0 };

	return syscall(SYS_io_uring_setup, 1, params) >= 0;
}

static bool bpf(void)
{
	char attr[128] = { 0 };

	return syscall(SYS_bpf, 0, attr, sizeof attr) >= 0 || errno != EPERM;
}

static bool userfault(void) { return syscall(SYS_userfaultfd, 0) >= 0 || syscall(SYS_userfaultfd, 1) >= 0; }

static bool perf(void)
{
	struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof a, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1, .exclude_hv = 1 };

	return syscall(SYS_perf_event_open, &a, 0, -1, -1, 0) >= 0 || errno != EPERM;
}

static bool reads(const char *path)
{
	char c;
	int fd = open(path, O_RDONLY);
	bool got = fd >= 0 && read(fd, &c, 1) == 1;

	if (fd >= 0)
		close(fd);
	return got;
}

static bool shadow(void) { return reads("/etc/shadow") || reads("/etc/gshadow") || reads("/proc/1/root/etc/shadow"); }
static bool kernel_memory(void) { return reads("/proc/kcore") || reads("/dev/mem") || reads("/dev/kmsg") || reads("/proc/kmsg"); }
static bool docker_socket(void) { return access("/var/run/docker.sock", F_OK) == 0 || access("/run/docker.sock", F_OK) == 0; }

static bool host_dirs(void)
{
	static const char *const dirs[] = { "/root", "/var/lib", "/var/log", "/boot", "/srv", "/opt", "/mnt", "/sys", "/etc/ssh", "/run/systemd", "/oldroot", "/proc/1/root/root" };

	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
		if (access(dirs[i], F_OK) == 0) {
			printf("# %s is there\n", dirs[i]);
			return true;
		}
	return false;
}

/* Every other process's environment, memory and descriptors. */
static bool others_in_proc(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	bool open = false;

	while (d && (e = readdir(d)) != NULL) {
		static const char *const parts[] = { "environ", "mem", "maps" };
		long pid = strtol(e->d_name, NULL, 10);
		char path[300];

		for (size_t i = 0; pid > 0 && pid != getpid() && pid != getppid() && i < sizeof parts / sizeof parts[0]; i++) {
			snprintf(path, sizeof path, "/proc/%ld/%s", pid, parts[i]);
			if (reads(path)) {
				printf("# %s\n", path);
				open = true;
			}
		}
	}
	if (d)
		closedir(d);
	return open;
}

static bool init_environ(void) { return reads("/proc/1/environ") || reads("/proc/1/auxv"); }
static bool init_files(void) { return access("/proc/1/root/.", F_OK) == 0 || access("/proc/1/cwd/.", F_OK) == 0 || open("/proc/1/fd/3", O_RDONLY) >= 0 || open("/proc/1/exe", O_RDONLY) >= 0; }

static bool writes(const char *dir)
{
	char path[300];

	snprintf(path, sizeof path, "%s/signalbox-hostile", dir);
	int fd = open(path, O_CREAT | O_WRONLY, 0644);
	if (fd < 0)
		return false;
	close(fd);
	unlink(path);
	printf("# wrote in %s\n", dir);
	return true;
}

static bool writes_outside(void)
{
	static const char *const dirs[] = { "/", "/etc", "/usr", "/usr/bin", "/usr/local", "/dev", "/dev/pts", "/run", "/run/signalbox", "/run/signalbox/gateway", "/run/signalbox/objects",
		"/home", "/var", "/proc", "/etc/alternatives" };
	bool open = false;

	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
		open |= writes(dirs[i]);
	return open;
}

static bool overwrites_init(void) { return open("/run/signalbox/init", O_WRONLY) >= 0 || chmod("/run/signalbox/init", 0777) == 0 || unlink("/run/signalbox/init") == 0; }
static bool edits_passwd(void) { return chmod("/etc/passwd", 0666) == 0 || open("/etc/passwd", O_WRONLY) >= 0 || rename("/etc/passwd", "/etc/p") == 0; }

static bool opens_for_writing(const char *path)
{
	int fd = open(path, O_WRONLY);
	bool open = fd >= 0;

	if (open)
		close(fd);
	return open;
}

static bool core_pattern(void) { return opens_for_writing("/proc/sys/kernel/core_pattern") || opens_for_writing("/proc/sys/kernel/modprobe"); }
static bool sysctls(void) { return opens_for_writing("/proc/sysrq-trigger") || opens_for_writing("/proc/sys/vm/overcommit_memory") || opens_for_writing("/proc/sys/user/max_user_namespaces"); }
static bool dev_modes(void) { return chmod("/dev/full", 0777) == 0 || chmod("/dev/null", 0777) == 0 || chown("/dev/null", 1000, 1000) == 0 || unlink("/dev/null") == 0; }
static bool mknod_device(void) { return mknod("/tmp/disk", S_IFBLK | 0600, makedev(254, 0)) == 0 || mknod("/workspace/disk", S_IFCHR | 0600, makedev(1, 1)) == 0; }

/* In a child, since success would change this process. */
static bool child_can(int (*fn)(void))
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(fn() == 0 ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int do_unshare_user(void) { return (int)syscall(SYS_unshare, CLONE_NEWUSER); }
static int do_unshare_mount(void) { return (int)syscall(SYS_unshare, CLONE_NEWNS); }
static int do_unshare_net(void) { return (int)syscall(SYS_unshare, CLONE_NEWNET); }
static int do_setuid(void) { return setuid(0); }
static int do_setgroups(void) { return syscall(SYS_setgroups, 0, NULL) < 0 ? -1 : 0; }
static int do_chroot(void) { return chroot("/tmp"); }
static int do_mount(void) { return mount("none", "/tmp", "tmpfs", 0, NULL); }
static int do_remount(void) { return mount("none", "/usr", NULL, MS_REMOUNT | MS_BIND, NULL); }
static int do_umount(void) { return umount2("/proc", MNT_DETACH); }
static int do_fsopen(void) { return syscall(SYS_fsopen, "tmpfs", 0) < 0 ? -1 : 0; }
static int do_open_tree(void) { return syscall(SYS_open_tree, -100, "/", 1) < 0 ? -1 : 0; }
static int do_pivot(void) { return (int)syscall(SYS_pivot_root, "/tmp", "/tmp"); }

static int do_setns(void)
{
	int fd = open("/proc/1/ns/mnt", O_RDONLY);

	return fd < 0 ? -1 : (int)syscall(SYS_setns, fd, 0);
}

static bool unshare_user(void) { return child_can(do_unshare_user); }
static bool unshare_other(void) { return child_can(do_unshare_mount) || child_can(do_unshare_net); }
static bool become_root(void) { return child_can(do_setuid) || child_can(do_setgroups); }
static bool changes_root(void) { return child_can(do_chroot) || child_can(do_pivot); }
static bool mounts(void) { return child_can(do_mount) || child_can(do_remount) || child_can(do_umount); }
static bool new_mount_api(void) { return child_can(do_fsopen) || child_can(do_open_tree); }
static bool joins_namespace(void) { return child_can(do_setns); }

static bool clone_user(void)
{
	long pid = syscall(SYS_clone, (unsigned long)(CLONE_NEWUSER | SIGCHLD), 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid((pid_t)pid, NULL, 0);
	return pid > 0;
}

static bool clone3_user(void)
{
	struct clone_args a = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };
	long pid = syscall(SYS_clone3, &a, sizeof a);

	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid((pid_t)pid, NULL, 0);
	return pid > 0;
}

static bool traces_init(void)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { (void *)(uintptr_t)0x400000, 1 };
	bool open = ptrace(PTRACE_ATTACH, 1, NULL, NULL) == 0 || ptrace(PTRACE_SEIZE, 1, NULL, NULL) == 0;

	return open || process_vm_readv(1, &here, 1, &there, 1, 0) >= 0;
}

static bool takes_init_fds(void)
{
	long fd = syscall(SYS_pidfd_open, 1, 0);

	for (int n = 0; fd >= 0 && n < 16; n++)
		if (syscall(SYS_pidfd_getfd, fd, n, 0) >= 0)
			return true;
	return false;
}

static bool kills_init(void)
{
	(void)kill(1, SIGKILL);
	(void)kill(1, SIGTERM);
	(void)kill(1, SIGSTOP);
	usleep(20000);
	return kill(1, 0) != 0 && errno == ESRCH;
}

static bool types_into_terminal(void)
{
	int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY);
	char c = 'x';
	bool open = ioctl(0, TIOCSTI, &c) == 0 || (fd >= 0 && ioctl(fd, TIOCSTI, &c) == 0) || errno != EPERM;

	open |= syscall(SYS_ioctl, 0, 0x100000000L | TIOCSTI, &c) == 0 || errno != EPERM;
	if (fd >= 0)
		close(fd);
	return open;
}

static bool has_terminal(void) { return open("/dev/tty", O_RDWR) >= 0; }
static bool loads_module(void) { return syscall(SYS_init_module, "", 0, "") == 0 || syscall(SYS_finit_module, 0, "", 0) == 0; }
static bool sets_clock(void) { return syscall(SYS_clock_settime, 0, &(struct timespec){ 0, 0 }) == 0; }

static bool extra_descriptors(void)
{
	bool open = false;

	for (int fd = 3; fd < 256; fd++)
		if (fcntl(fd, F_GETFD) >= 0) {
			printf("# descriptor %d\n", fd);
			open = true;
		}
	return open;
}

static bool has_capability(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");
	bool open = !f;

	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, "Cap", 3) == 0 && strtoull(line + 7, NULL, 16) != 0)
			open = true;
	if (f)
		fclose(f);
	return open;
}

#ifdef __x86_64__
/* 32-bit entry: the filter knows no such calls, so the process dies. */
static int do_int80(void)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(20) : "memory");
	return ret > 0 ? 0 : -1;
}

static int do_x32(void) { return syscall(0x40000000L | SYS_getpid) > 0 ? 0 : -1; }
static bool other_architecture(void) { return child_can(do_int80) || child_can(do_x32); }
#else
static bool other_architecture(void) { return false; }
#endif

static const struct { const char *name; attempt_fn *try; } attempts[] = {
	{ "extra-descriptors", extra_descriptors }, /* first: later ones leave some */
	{ "ipv4-tcp", ipv4_tcp }, { "ipv4-udp", ipv4_udp }, { "ipv6-tcp", ipv6_tcp }, { "metadata", metadata }, { "docker-host", docker_host },
	{ "vsock", vsock }, { "vsock-high-bits", vsock_high_bits }, { "packet-socket", packet_socket }, { "raw-socket", raw_socket },
	{ "alg-socket", alg_socket }, { "bluetooth", bluetooth }, { "key-socket", key_socket }, { "abstract-socket", abstract_socket },
	{ "keyring", keyring }, { "add-key", key_add }, { "request-key", key_request }, { "io-uring", io_uring }, { "bpf", bpf },
	{ "userfaultfd", userfault }, { "perf", perf }, { "shadow", shadow }, { "kernel-memory", kernel_memory },
	{ "docker-socket", docker_socket }, { "host-directories", host_dirs }, { "others-in-proc", others_in_proc },
	{ "init-environ", init_environ }, { "init-files", init_files }, { "write-outside", writes_outside },
	{ "overwrite-init", overwrites_init }, { "edit-passwd", edits_passwd }, { "core-pattern", core_pattern }, { "sysctls", sysctls },
	{ "device-modes", dev_modes }, { "mknod", mknod_device }, { "unshare-user", unshare_user }, { "unshare-other", unshare_other },
	{ "clone-user", clone_user }, { "clone3-user", clone3_user }, { "become-root", become_root }, { "change-root", changes_root },
	{ "mount", mounts }, { "new-mount-api", new_mount_api }, { "setns", joins_namespace }, { "trace-init", traces_init },
	{ "take-init-descriptors", takes_init_fds }, { "kill-init", kills_init }, { "tiocsti", types_into_terminal },
	{ "terminal", has_terminal }, { "load-module", loads_module }, { "set-clock", sets_clock },
	{ "capabilities", has_capability }, { "other-architecture", other_architecture },
};

static bool file_mentions(const char *path, const char *needle)
{
	char line[4096];
	FILE *f = fopen(path, "r");
	bool found = false;

	while (f && fgets(line, sizeof line, f))
		found |= strstr(line, needle) != NULL;
	if (f)
		fclose(f);
	return found;
}

int main(int argc, char **argv)
{
	int open = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2)
		return 101;
	driver = argv[1];
	for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
		bool worked = attempts[i].try();

		printf("%s %s\n", worked ? "OPEN" : "refused", attempts[i].name);
		open += worked;
	}
	for (int i = 2; i < argc; i++) {
		bool seen = access(argv[i], F_OK) == 0 || file_mentions("/proc/1/cmdline", argv[i]);

		printf("%s host-path:%s\n", seen ? "OPEN" : "refused", argv[i]);
		open += seen;
	}
	return open > 100 ? 100 : open;
}
