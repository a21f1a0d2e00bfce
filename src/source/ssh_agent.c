/* ssh wants a key as a file or from an agent. A file would stay behind when we are killed, so it is an agent: it dies with us, and the
 * key goes into it through a pipe. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "source/credential.h"
#include "source/git.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define START_TIMEOUT_MS 30000
#define START_POLL_MS 2
#define END_WAIT_MS 2000
#define ADD_TIMEOUT_MS ((int64_t)30000)

struct ssh_agent {
	struct proc proc;
	struct identity as;
	char *dir, *socket, *known_hosts;
};

static bool answers(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(at.sun_path))
		return false;
	memcpy(at.sun_path, path, strlen(path) + 1);
	return connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0;
}

static enum err_code start_agent(struct ssh_agent *a, struct error *e)
{
	const struct timespec pause = { .tv_nsec = START_POLL_MS * 1000000L };
	const struct git g = { .cwd = "/", .as = &a->as };
	const char *const argv[] = { "ssh-agent", "-D", "-a", a->socket, NULL };
	int status = 0;

	TRY(git_peer_start(&g, argv, PROC_NULL, PROC_NULL, PROC_NULL, &a->proc, e));
	for (int waited = 0; waited < START_TIMEOUT_MS; waited += START_POLL_MS) {
		if (answers(a->socket))
			return ERR_OK;
		if (proc_wait(&a->proc, 0, &status, NULL) == ERR_OK)
			return error_set(e, ERR_FAILED, "ssh-agent ended with status %d", status);
		nanosleep(&pause, NULL);
	}
	return error_set(e, ERR_TIMEOUT, "ssh-agent did not start");
}

/* The key through a pipe: it is smaller than the pipe's buffer. */
static enum err_code add_key(struct ssh_agent *a, const char *key, struct error *e)
{
	AUTO_FREE char *variable = mem_printf("SSH_AUTH_SOCK=%s", a->socket);
	const char *const environment[] = { variable, "SSH_ASKPASS_REQUIRE=never", NULL };
	const struct git g = { .cwd = "/", .as = &a->as, .environment = environment };
	const char *const argv[] = { "ssh-add", "-q", "-", NULL };
	struct proc proc = PROC_INIT;
	enum err_code code;
	int pipe_fds[2], status = 0;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	code = file_write_all(pipe_fds[1], key, strlen(key), e);
	if (code == ERR_OK && !str_ends(key, "\n"))
		code = file_write_all(pipe_fds[1], "\n", 1, e);
	close(pipe_fds[1]);
	if (code == ERR_OK)
		code = git_peer_start(&g, argv, pipe_fds[0], PROC_NULL, PROC_NULL, &proc, e);
	close(pipe_fds[0]);
	if (code == ERR_OK)
		code = proc_wait(&proc, ADD_TIMEOUT_MS, &status, e);
	proc_release(&proc);
	if (code != ERR_OK || status == 0)
		return code;
	error_set(e, ERR_DENIED, "the stored ssh key is not one that ssh-add takes");
	error_hint(e, "store a private key without a passphrase: signalbox secret set ssh:HOST --known-hosts FILE < KEY");
	return ERR_DENIED;
}

static enum err_code make_dir(struct ssh_agent *a, const char *known_hosts, struct error *e)
{
	TRY(file_tmpdir("/tmp", "signalbox-ssh", &a->dir, e));
	a->socket = file_join(a->dir, "agent");
	if (str_empty(known_hosts))
		return ERR_OK;
	a->known_hosts = file_join(a->dir, "known_hosts");
	return file_replace(a->known_hosts, known_hosts, strlen(known_hosts), 0600, FILE_NOSYNC, e);
}

static enum err_code prepare(struct ssh_agent *a, const struct credential *c, struct error *e)
{
	struct identity before;
	enum err_code code;

	TRY(identity_enter(&a->as, &before, e));
	code = make_dir(a, c->known_hosts, e);
	if (code == ERR_OK)
		code = start_agent(a, e);
	identity_return(&before);
	return code == ERR_OK ? add_key(a, c->secret, e) : code;
}

enum err_code ssh_agent_start(const struct credential *c, const struct identity *as, struct ssh_agent **ret, struct error *e)
{
	struct ssh_agent *a = NEW(struct ssh_agent);
	enum err_code code;

	a->proc = (struct proc)PROC_INIT;
	a->as = *as;
	code = prepare(a, c, e);
	if (code == ERR_OK)
		*ret = a;
	else
		ssh_agent_stop(a);
	return code;
}

void ssh_agent_stop(struct ssh_agent *a)
{
	struct identity before = { .set = false };
	int status;

	if (!a)
		return;
	if (identity_enter(&a->as, &before, NULL) == ERR_OK) { /* it may be somebody else's process and directory */
		if (a->proc.pidfd >= 0) {
			proc_signal(&a->proc, SIGKILL);
			if (proc_wait(&a->proc, END_WAIT_MS, &status, NULL) != ERR_OK)
				proc_release(&a->proc);
		}
		if (a->dir && file_remove_tree(a->dir, NULL) != ERR_OK)
			unlink(a->socket);
		identity_return(&before);
	}
	free(a->dir);
	free(a->socket);
	free(a->known_hosts);
	free(a);
}

const char *ssh_agent_socket(const struct ssh_agent *a)
{
	return a->socket;
}

const char *ssh_agent_known_hosts(const struct ssh_agent *a)
{
	return a->known_hosts;
}
