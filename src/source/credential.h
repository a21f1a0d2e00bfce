/* One credential on its way to the process that clones with it: packed by the server into a memory file, inherited as a descriptor,
 * read once, used for the one host it is of, and wiped before anything else is done. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include "source/identity.h"
#include "source/url.h"
#include <stdbool.h>

#define CREDENTIAL_FD 3			     /* where `signalbox fetch` finds it, when its job says "secret" */
#define CREDENTIAL_MAX ((size_t)64 << 10) /* bytes, packed */

struct credential {
	bool is_key;		 /* an ssh key; else a password or token for http */
	const char *user;	 /* http: the name beside the password */
	const char *secret;	 /* the password, or the private key's text */
	const char *known_hosts; /* ssh: lines; "": the machine's own */
	char *memory;		 /* what the others point into, of CREDENTIAL_MAX bytes; NULL when they are somebody else's */
};

/* A descriptor (CLOEXEC) that gives it to credential_read, once. */
MUST_USE enum err_code credential_pack(const struct credential *c, int *ret_fd, struct error *e);
MUST_USE enum err_code credential_read(int fd, struct credential *ret, struct error *e);
void credential_release(struct credential *c); /* wipes */
bool credential_fits(const struct credential *c, enum url_kind kind);

/* ---- http: git asks, we answer ---- */

struct askpass {
	int fd, program_fd; /* the answer, for one reader, and our own program: both for git to inherit; -1: none */
	char *variables[3]; /* for git's environment, NULL-ended */
};
#define ASKPASS_INIT { .fd = -1, .program_fd = -1 }
MUST_USE enum err_code askpass_open(const struct credential *c, const struct source_url *url, struct askpass *ret, struct error *e);
void askpass_close(struct askpass *a);
/* This process was started by git to answer its question: main has nothing else to do then. */
bool askpass_is_asked(void);
int askpass_main(int argc, char **argv);

/* ---- ssh: an agent of our own ---- */

struct ssh_agent;
/* Started as `as`, on a socket in a private directory, with the key in its memory alone. */
MUST_USE enum err_code ssh_agent_start(const struct credential *c, const struct identity *as, struct ssh_agent **ret, struct error *e);
void ssh_agent_stop(struct ssh_agent *a);
const char *ssh_agent_socket(const struct ssh_agent *a);
const char *ssh_agent_known_hosts(const struct ssh_agent *a); /* a file; NULL: the machine's own */
