/* THE table of what each route takes and gives. */
#include "api/docs.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <string.h>

#define TASK_QUERY "repo"

/* clang-format off */
const struct api_doc api_docs[] = {
	{ "POST", "/v1/tasks", "submitTask", "tasks", NULL, "NewTask", "201 Task", DOC_IDEMPOTENT, "It is durable when this answers. A local directory or an archive is snapshot before. Also as multipart/form-data with the parts task (this JSON) and archive (the file)." },
	{ "GET", "/v1/tasks", "listTasks", "tasks", "state label* q name repo after limit:tasks", NULL, "200 TaskList", 0,
	  "A page may hold fewer tasks than its limit, also none, while next_cursor is not null: go on from there. With q the order is that in which tasks were indexed, newest first." },
	{ "GET", "/v1/tasks/{task}", "getTask", "tasks", TASK_QUERY, NULL, "200 Task", 0, NULL },
	{ "PATCH", "/v1/tasks/{task}", "changeTask", "tasks", TASK_QUERY, "TaskChange", "200 Task", DOC_MERGE, "A merge patch: labels that are null go, others stay." },
	{ "DELETE", "/v1/tasks/{task}", "removeTask", "tasks", TASK_QUERY, NULL, "204", 0, NULL },
	{ "POST", "/v1/tasks/{task}/cancel", "cancelTask", "tasks", TASK_QUERY, "Nothing", "202 Task, 200 Task", DOC_IDEMPOTENT, "200 when it had ended before." },
	{ "POST", "/v1/tasks/{task}/retry", "retryTask", "tasks", TASK_QUERY, "Nothing", "202 Task", DOC_IDEMPOTENT, NULL },
	{ "POST", "/v1/tasks/{task}/messages", "sayToTask", "tasks", TASK_QUERY, "Message", "202 SaidTask", DOC_IDEMPOTENT, NULL },
	{ "POST", "/v1/tasks/{task}/interrupt", "interruptTask", "tasks", TASK_QUERY, "Nothing", "202 Task", 0, "The task is CANCELED (interrupted) when the agent has ended its turn." },
	{ "GET", "/v1/tasks/{task}/todos", "getTodos", "tasks", TASK_QUERY, NULL, "200 TodoList", 0, NULL },
	{ "GET", "/v1/tasks/{task}/todos/events", "readTodoEvents", "tasks", TASK_QUERY " after:seq limit:events", NULL, "200 EventPage", 0, NULL },
	{ "POST", "/v1/uploads", "sendUpload", "uploads", "name:uploads size", "application/octet-stream", "201 Upload", 0,
	  "zip, tar, tar.gz, tar.zst or tar.xz. With size there is no body: the pieces are sent by PATCH. A task begins from it by the source {\"kind\": \"archive\", \"upload\": ID}." },
	{ "GET", "/v1/uploads", "listUploads", "uploads", NULL, NULL, "200 UploadList", 0, NULL },
	{ "GET", "/v1/uploads/{upload}", "getUpload", "uploads", NULL, NULL, "200 Upload", 0, "Upload-Offset tells how much has come, Upload-Length how much there will be." },
	{ "PATCH", "/v1/uploads/{upload}", "sendPiece", "uploads", "offset", "application/octet-stream", "200 Upload", 0,
	  "The offset must be where the upload stands; what was received before a connection broke counts." },
	{ "DELETE", "/v1/uploads/{upload}", "removeUpload", "uploads", NULL, NULL, "204", 0, NULL },
	{ "GET", "/v1/gates", "listGates", "gates", "state:gates task:gates after limit:gates", NULL, "200 GateList", 0, NULL },
	{ "GET", "/v1/gates/{gate}", "getGate", "gates", NULL, NULL, "200 Gate", 0, NULL },
	{ "POST", "/v1/gates/{gate}/decision", "decideGate", "gates", NULL, "Decision", "200 Gate", DOC_IDEMPOTENT, "The same decision again gives the same answer; another one is a conflict." },
	{ "GET", "/v1/tasks/{task}/wait", "waitForTask", "tasks", TASK_QUERY " timeout", NULL, "200 WaitedTask", 0, "Holds no thread of the server while it waits." },
	{ "GET", "/v1/tasks/{task}/runs", "listRuns", "runs", TASK_QUERY, NULL, "200 RunList", 0, NULL },
	{ "GET", "/v1/tasks/{task}/events", "readEvents", "events", TASK_QUERY " after:seq limit:events follow", NULL,
	  "200 EventPage, 200 application/jsonl, 200 text/event-stream", 0, "As a stream, Last-Event-ID resumes; a comment every 15 s keeps it open." },
	{ "GET", "/v1/events", "readAllEvents", "events", "after:feed limit:events follow", NULL, "200 AllEventsPage, 200 application/jsonl, 200 text/event-stream", 0,
	  "In the order of the commits; each line comes at least once. A cursor holds over restarts, as long as its line is kept." },
	{ "GET", "/v1/tasks/{task}/diff", "getDiff", "results", TASK_QUERY " run", NULL, "200 text/x-diff", 0, NULL },
	{ "GET", "/v1/tasks/{task}/artifacts", "listArtifacts", "results", TASK_QUERY, NULL, "200 ArtifactList", 0, NULL },
	{ "GET", "/v1/tasks/{task}/artifacts/{path*}", "getArtifact", "results", TASK_QUERY, NULL, "200 */*", 0, NULL },
	{ "GET", "/v1/runs/{run}", "getRun", "runs", NULL, NULL, "200 Run", 0, NULL },
	{ "GET", "/v1/ws", "openChannel", "events", NULL, NULL, "101", 0, "See doc/channel.md for what is said on it." },
	{ "POST", "/v1/external", "reportExternal", "external", NULL, "ChannelMessage", "200 ChannelReply", 0, NULL },
	{ "GET", "/v1/external", "listExternal", "external", NULL, NULL, "200 External", 0, NULL },
	{ "GET", "/v1/agents", "listAgents", "server", NULL, NULL, "200 AgentList", 0, NULL },
	{ "GET", "/v1/reconcile", "getReconcile", "server", NULL, NULL, "200 Reconcile", 0, NULL },
	{ "GET", "/v1/doctor", "getChecks", "server", NULL, NULL, "200 Checks", 0, NULL },
	{ "POST", "/v1/keys", "offerKey", "server", NULL, "OfferedKey", "204", 0, NULL },
	{ "POST", "/v1/tokens", "createToken", "tokens", NULL, "NewToken", "201 CreatedToken", 0, "Its text is told here and never again." },
	{ "GET", "/v1/tokens", "listTokens", "tokens", NULL, NULL, "200 TokenList", 0, NULL },
	{ "DELETE", "/v1/tokens/{token}", "revokeToken", "tokens", NULL, NULL, "204", 0, NULL },
	{ "GET", "/v1/secrets", "listSecrets", "secrets", "project", NULL, "200 SecretList", 0, NULL },
	{ "PUT", "/v1/secrets/{secret*}", "storeSecret", "secrets", "project", "NewSecret", "204", 0,
	  "git:HOST[:PORT][/PATH] for a token or password, ssh:HOST[:PORT][/PATH] for a private key; the longest path that fits a URL is used." },
	{ "DELETE", "/v1/secrets/{secret*}", "forgetSecret", "secrets", "project", NULL, "204", 0, NULL },
	{ "POST", "/v1/prune", "pruneCache", "server", NULL, "Prune", "200 Pruned", 0, NULL },
	{ "POST", "/v1/reload", "reloadConfiguration", "server", NULL, "Nothing", "200 Reloaded", 0, NULL },
	{ "GET", "/logs/{task}/{name}", "getLog", "results", TASK_QUERY, NULL, "200 */*", 0, NULL },
	{ "GET", "/v1/openapi.json", "getOpenapi", "server", NULL, NULL, "200 OpenApi", 0, NULL },
	{ "GET", "/healthz", "getHealth", "server", NULL, NULL, "200 text/plain", 0, NULL },
	{ "GET", "/readyz", "getReadiness", "server", "verbose", NULL, "200 Ready, 503 Ready", 0, NULL },
	{ "GET", "/version", "getVersion", "server", NULL, NULL, "200 Version", 0, NULL },
	{ "GET", "/metrics", "getMetrics", "server", NULL, NULL, "200 text/plain", 0, NULL },
	{ .method = NULL },
};

const struct query_doc api_query_docs[] = {
	{ "repo", "{\"type\":\"string\"}", "The key of a repository: narrows a name that several use" },
	{ "project", "{\"type\":\"string\"}", "Whose: for the server's owner, by its socket; others have their own" },
	{ "state", "{\"type\":\"string\",\"examples\":[\"RUNNING,QUEUED\"]}", "Only these: QUEUED, RUNNING, WAITING, DONE, ERROR, TIMEOUT, CANCELED, with commas between" },
	{ "state:gates", "{\"type\":\"string\",\"examples\":[\"blocked\"]}", "Only those in this state" },
	{ "label*", "{\"type\":\"array\",\"items\":{\"type\":\"string\"}}", "KEY=VALUE, or KEY for any value; all that are given must be there" },
	{ "q", "{\"type\":\"string\",\"minLength\":1}", "Words of the prompt, all must be there; \\\"a phrase\\\", and begin* for words that begin so" },
	{ "name", "{\"type\":\"string\"}", "Only those with exactly this name" },
	{ "name:uploads", "{\"type\":\"string\",\"minLength\":1,\"maxLength\":255}", "What people see: the file's name" },
	{ "size", "{\"type\":\"integer\",\"minimum\":1}", "Only announced: so many bytes will come in pieces" },
	{ "offset", "{\"type\":\"integer\",\"minimum\":0}", "Where the piece begins" },
	{ "after", "{\"type\":\"string\"}", "next_cursor of the page before" },
	{ "after:seq", "{\"type\":\"integer\",\"minimum\":0}", "The last seq seen; 0 is the beginning" },
	{ "after:feed", "{\"type\":\"string\"}", "A cursor of this log; 0: from the oldest line kept, end: only what comes from now on" },
	{ "limit:tasks", "{\"type\":\"integer\",\"minimum\":1,\"maximum\":200,\"default\":50}", "How many at most" },
	{ "run", "{\"type\":\"integer\",\"minimum\":1}", "Only what this run of the task changed" },
	{ "task:gates", "{\"type\":\"string\"}", "Only those of this task" },
	{ "limit:gates", "{\"type\":\"integer\",\"minimum\":1,\"maximum\":1000,\"default\":200}", "How many at most" },
	{ "limit:events", "{\"type\":\"integer\",\"minimum\":1,\"maximum\":1000,\"default\":200}", "How many at most" },
	{ "follow", "{\"type\":\"string\",\"enum\":[\"0\",\"1\"]}", "1: JSONL goes on to the task's end" },
	{ "timeout", "{\"type\":\"integer\",\"minimum\":0,\"maximum\":86400,\"default\":3600}", "Seconds after which it answers anyway" },
	{ "verbose", "{\"type\":\"string\"}", "Lists the checks" },
	{ .name = NULL },
};
/* clang-format on */

const struct api_doc *api_doc_of(const struct http_route *route)
{
	for (const struct api_doc *d = api_docs; d->method; d++)
		if (str_eq(d->method, route->method) && str_eq(d->pattern, route->pattern))
			return d;
	return NULL;
}

bool api_doc_word(const char **at, const char **ret_word, size_t *ret_len, size_t *ret_name)
{
	while (*at && **at == ' ')
		(*at)++;
	if (!*at || !**at)
		return false;
	*ret_word = *at;
	*ret_len = strcspn(*at, " ");
	*ret_name = strcspn(*at, " :*");
	*at += *ret_len;
	return true;
}

static bool query_is_known(const char *list, const char *name, bool *ret_repeats)
{
	const char *word;
	size_t len, n;
	while (api_doc_word(&list, &word, &len, &n))
		if (n == strlen(name) && memcmp(word, name, n) == 0) {
			*ret_repeats = word[len - 1] == '*';
			return true;
		}
	return false;
}

static enum err_code unknown_query(const char *list, const char *name, struct error *e)
{
	AUTO_STRBUF struct strbuf known = STRBUF_INIT;
	const char *word;
	size_t len, n;
	while (api_doc_word(&list, &word, &len, &n))
		strbuf_addf(&known, "%s%.*s", known.len ? ", " : "", (int)n, word);
	error_set(e, ERR_INVALID, "unknown query parameter '%.80s'", name);
	if (known.len)
		error_hint(e, "it takes %s", strbuf_str(&known));
	else
		error_hint(e, "it takes none");
	return ERR_INVALID;
}

enum err_code api_check_query(const struct http_request *r, struct error *e)
{
	const char *name = http_query_name(r, 0);
	const struct api_doc *d = name ? api_doc_of(http_route_of(r)) : NULL;
	for (size_t i = 0; d && (name = http_query_name(r, i)); i++) {
		bool repeats = false;
		if (!query_is_known(d->query, name, &repeats))
			return unknown_query(d->query, name, e);
		if (!repeats && http_query_nth(r, name, 1))
			return error_set(e, ERR_INVALID, "the query parameter '%.80s' is given twice", name);
	}
	return ERR_OK;
}
