/* The HTTP API: one route table (routes.c), one function that decides who may call what (auth.c), one file of handlers per subject. */
#pragma once
#include "core/core.h"
#include "net/server.h"
#include <pthread.h>
#include <sys/types.h>

#define API_WAIT_DEFAULT_S 3600
#define API_WAIT_MAX_S 86400
#define API_COMMENT_INTERVAL_MS 15000 /* an SSE comment keeps proxies and readers sure that we are there */
#define API_COMMANDS_WAIT_MAX_S 30

/* What a route may touch; each has one. */
enum route_scope {
	ROUTE_OPEN = 1, /* anybody who can connect: says nothing of anybody's work */
	ROUTE_PROJECT,	/* what is of the caller's project: the rest does not exist for him */
	ROUTE_SERVER,	/* the server as a whole: not for the tokens of projects other than the default one */
	ROUTE_OWNER,	/* the same, by the unix socket alone, never by a token */
	ROUTE_RUNNER,	/* a runner with its run's token; on the runners' socket only */
};

struct api {
	struct core *core;
	char *token;	/* bearer token of the TCP listener, or NULL */
	char *tcp_host; /* "127.0.0.1:8080": where it listens */
	const char *const *hosts; /* names by which others reach us, through a proxy; beside those of the configuration */
	int host_count;
	int tcp_port;
	int64_t started_ms;
	_Atomic bool stopping; /* streams say goodbye */
	uid_t owner; /* whose unix socket it is */
	char *owner_name, *root_name; /* principals */
	pthread_mutex_t lock;	      /* guards the next */
	char *openapi;		      /* the document, made when it is first asked for */
};

extern const struct http_route api_routes[];	    /* people and programs */
extern const struct http_route api_runner_routes[]; /* runners, on a socket of their own */

enum err_code api_authorize(struct http_request *r, void *ctx, struct error *e);
void api_load_names(struct api *a);
enum err_code api_authorize_runner(struct http_request *r, void *ctx, struct error *e);
MUST_USE enum err_code api_load_token(const char *data_dir, char **ret, struct error *e);
const char *api_scope_name(unsigned scope);
struct caller api_caller(const struct http_request *r); /* as authorised; its texts live as long as the request */
const char *api_bearer(const struct http_request *r); /* the token of the Authorization header, or NULL */

bool api_has_no_words(struct http_request *r); /* a body that says nothing; else the refusal is the answer */
/* Resolves {task} (and ?repo=); answers the error itself and returns false. */
bool api_task_id(struct http_request *r, struct api *a, char ret_id[27]);
/* A suspended reply that is one JSON document, given when `ready` says so; see wait.c. */
void api_wait_task(struct http_request *r, void *ctx);
void api_wait_commands(struct http_request *r, void *ctx);

void api_post_task(struct http_request *r, void *ctx);
void api_list_tasks(struct http_request *r, void *ctx);
void api_get_task(struct http_request *r, void *ctx);
void api_patch_task(struct http_request *r, void *ctx);
void api_delete_task(struct http_request *r, void *ctx);
void api_cancel_task(struct http_request *r, void *ctx);
void api_retry_task(struct http_request *r, void *ctx);
void api_post_message(struct http_request *r, void *ctx);
void api_post_upload(struct http_request *r, void *ctx);
void api_list_uploads(struct http_request *r, void *ctx);
void api_get_upload(struct http_request *r, void *ctx);
void api_patch_upload(struct http_request *r, void *ctx);
void api_delete_upload(struct http_request *r, void *ctx);
void api_list_gates(struct http_request *r, void *ctx);
void api_get_gate(struct http_request *r, void *ctx);
void api_interrupt_task(struct http_request *r, void *ctx);
void api_get_todos(struct http_request *r, void *ctx);
void api_get_todo_events(struct http_request *r, void *ctx);
void api_decide_gate(struct http_request *r, void *ctx);
void api_list_runs(struct http_request *r, void *ctx);
void api_get_run(struct http_request *r, void *ctx);
void api_get_events(struct http_request *r, void *ctx);
void api_get_all_events(struct http_request *r, void *ctx);
void api_get_diff(struct http_request *r, void *ctx);
void api_list_artifacts(struct http_request *r, void *ctx);
void api_get_artifact(struct http_request *r, void *ctx);
void api_get_log(struct http_request *r, void *ctx);
void api_post_key(struct http_request *r, void *ctx);
void api_post_token(struct http_request *r, void *ctx);
void api_list_secrets(struct http_request *r, void *ctx);
void api_put_secret(struct http_request *r, void *ctx);
void api_delete_secret(struct http_request *r, void *ctx);
void api_prune(struct http_request *r, void *ctx);
void api_list_tokens(struct http_request *r, void *ctx);
void api_delete_token(struct http_request *r, void *ctx);
void api_reload(struct http_request *r, void *ctx);
void api_get_openapi(struct http_request *r, void *ctx);
void api_healthz(struct http_request *r, void *ctx);
void api_readyz(struct http_request *r, void *ctx);
void api_metrics(struct http_request *r, void *ctx);
void api_version(struct http_request *r, void *ctx);
void api_doctor(struct http_request *r, void *ctx);
void api_reconcile(struct http_request *r, void *ctx);
void api_agents(struct http_request *r, void *ctx);
void api_ws(struct http_request *r, void *ctx);
void api_post_external(struct http_request *r, void *ctx);
void api_get_external(struct http_request *r, void *ctx);
void api_runner_events(struct http_request *r, void *ctx);
