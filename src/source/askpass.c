/* git asks for a password by starting a program with the question as its argument. That program is ours: this same executable, which
 * finds the answer in a pipe that git has inherited and passed on. The pipe holds it once; the environment only says which pipe, and for
 * which host, so that a question about another one stays without an answer. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/credential.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define VARIABLE "SIGNALBOX_ASKPASS" /* "FD HOST[:PORT]" */
#define ANSWER_MAX ((size_t)16 << 10)

static char *authority_of(const struct source_url *url)
{
	const char *from = strstr(url->text, "://");

	from = from ? from + 3 : url->text;
	return mem_strndup(from, strcspn(from, "/"));
}

enum err_code askpass_open(const struct credential *c, const struct source_url *url, struct askpass *ret, struct error *e)
{
	AUTO_CLOSE int program = open("/proc/self/exe", O_PATH | O_CLOEXEC); /* git's identity may not be allowed to walk there */
	AUTO_FREE char *authority = authority_of(url);
	AUTO_CLOSE int from = -1;
	AUTO_CLOSE int to = -1;
	int fds[2];

	if (program < 0)
		return error_errno(e, "open our own program");
	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	from = fds[0];
	to = fds[1];
	if (strlen(c->secret) > ANSWER_MAX) /* more might not fit into the pipe */
		return error_set(e, ERR_LIMIT, "the password for %s is longer than %zu bytes", url->host, ANSWER_MAX);
	if (file_write_all(to, c->secret, strlen(c->secret), e) != ERR_OK)
		return e ? e->code : ERR_IO;
	ret->variables[0] = mem_printf("GIT_ASKPASS=/proc/self/fd/%d", program);
	ret->variables[1] = mem_printf(VARIABLE "=%d %s", from, authority);
	ret->fd = TAKE_FD(from);
	ret->program_fd = TAKE_FD(program);
	return ERR_OK;
}

void askpass_close(struct askpass *a)
{
	if (a->fd >= 0)
		close(a->fd);
	if (a->program_fd >= 0)
		close(a->program_fd);
	free(a->variables[0]);
	free(a->variables[1]);
	*a = (struct askpass)ASKPASS_INIT;
}

bool askpass_is_asked(void)
{
	return getenv(VARIABLE) != NULL;
}

/* "Password for 'https://user@host:port': " */
static bool is_about(const char *question, const char *authority)
{
	AUTO_FREE char *with_user = mem_printf("@%s'", authority);
	AUTO_FREE char *without = mem_printf("://%s'", authority);

	return str_starts(question, "Password for '") && (strcasestr(question, with_user) || strcasestr(question, without));
}

int askpass_main(int argc, char **argv)
{
	const char *variable = getenv(VARIABLE), *space = variable ? strchr(variable, ' ') : NULL;
	char *answer;
	int64_t fd = -1;
	size_t len = 0;
	ssize_t n;

	if (argc != 2 || !space || !is_about(argv[1], space + 1))
		return 1;
	AUTO_FREE char *number = mem_strndup(variable, (size_t)(space - variable));
	if (str_to_i64(number, "descriptor", 3, INT32_MAX, &fd, NULL) != ERR_OK)
		return 1;
	answer = mem_alloc(ANSWER_MAX + 1);
	while (len < ANSWER_MAX && (n = read((int)fd, answer + len, ANSWER_MAX - len)) != 0) {
		if (n < 0 && errno != EINTR)
			break;
		len += n > 0 ? (size_t)n : 0;
	}
	answer[len] = '\n';
	if (len && file_write_all(STDOUT_FILENO, answer, len + 1, NULL) != ERR_OK)
		len = 0;
	explicit_bzero(answer, len + 1);
	free(answer);
	return len ? 0 : 1;
}
