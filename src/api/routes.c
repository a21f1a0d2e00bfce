/* THE table: every way in over HTTP.  OpenAPI, help and tests are made from it. */
#include "api/uploads.h"

#define RUNNER_BODY_MAX ((size_t)16 << 20)
#define SMALL_BODY_MAX ((size_t)64 << 10)
#define EXTERNAL_BODY_MAX ((size_t)1 << 20)

const struct http_route api_routes[] = {
	{ "POST", "/v1/tasks", api_post_task, ROUTE_PROJECT, TASK_BODY_MAX, "Submit a task; answers when it is durable" },
	{ "GET", "/v1/tasks", api_list_tasks, ROUTE_PROJECT, 0, "List tasks, newest first" },
	{ "GET", "/v1/tasks/{task}", api_get_task, ROUTE_PROJECT, 0, "One task" },
	{ "PATCH", "/v1/tasks/{task}", api_patch_task, ROUTE_PROJECT, SMALL_BODY_MAX, "Change a task's name, labels or priority" },
	{ "DELETE", "/v1/tasks/{task}", api_delete_task, ROUTE_PROJECT, 0, "Remove an ended task and its directory" },
	{ "POST", "/v1/tasks/{task}/cancel", api_cancel_task, ROUTE_PROJECT, SMALL_BODY_MAX, "End a task; its partial diff is kept" },
	{ "POST", "/v1/tasks/{task}/retry", api_retry_task, ROUTE_PROJECT, SMALL_BODY_MAX, "Begin an ended task again: a new attempt in its workspace" },
	{ "POST", "/v1/tasks/{task}/messages", api_post_message, ROUTE_PROJECT, SMALL_BODY_MAX * 8, "Say something: into the running turn, or the next turn of an ended or waiting task" },
	{ "POST", "/v1/tasks/{task}/interrupt", api_interrupt_task, ROUTE_PROJECT, SMALL_BODY_MAX, "Ask the running turn to end; the workspace is kept and a message goes on" },
	{ "GET", "/v1/tasks/{task}/todos", api_get_todos, ROUTE_PROJECT, 0, "The agent's plan as it is" },
	{ "GET", "/v1/tasks/{task}/todos/events", api_get_todo_events, ROUTE_PROJECT, 0, "Its history: the log's todo events" },
	{ "POST", "/v1/uploads", api_post_upload, ROUTE_PROJECT, 0, "Send an archive; answers when it is durable" },
	{ "GET", "/v1/uploads", api_list_uploads, ROUTE_PROJECT, 0, "Archives that are kept" },
	{ "GET", "/v1/uploads/{upload}", api_get_upload, ROUTE_PROJECT, 0, "One of them, and how much of it has come" },
	{ "PATCH", "/v1/uploads/{upload}", api_patch_upload, ROUTE_PROJECT, 0, "Send a further piece of an announced archive" },
	{ "DELETE", "/v1/uploads/{upload}", api_delete_upload, ROUTE_PROJECT, 0, "Remove one; tasks that began from it keep their snapshot" },
	{ "GET", "/v1/gates", api_list_gates, ROUTE_PROJECT, 0, "Questions to people; ?state=blocked gives the open ones" },
	{ "GET", "/v1/gates/{gate}", api_get_gate, ROUTE_PROJECT, 0, "One gate, whole" },
	{ "POST", "/v1/gates/{gate}/decision", api_decide_gate, ROUTE_PROJECT, SMALL_BODY_MAX * 8, "Settle one, once" },
	{ "GET", "/v1/tasks/{task}/wait", api_wait_task, ROUTE_PROJECT, 0, "Answer when the task ends, waits for a human, or the time is up" },
	{ "GET", "/v1/tasks/{task}/runs", api_list_runs, ROUTE_PROJECT, 0, "The task's runs" },
	{ "GET", "/v1/tasks/{task}/events", api_get_events, ROUTE_PROJECT, 0, "The log from a cursor on: JSON page, JSONL or SSE by Accept" },
	{ "GET", "/v1/events", api_get_all_events, ROUTE_PROJECT, 0, "The log of all tasks in the order of its commits, from a cursor on: JSON page, JSONL or SSE by Accept" },
	{ "GET", "/v1/tasks/{task}/diff", api_get_diff, ROUTE_PROJECT, 0, "The changes as a patch" },
	{ "GET", "/v1/tasks/{task}/artifacts", api_list_artifacts, ROUTE_PROJECT, 0, "Files handed in" },
	{ "GET", "/v1/tasks/{task}/artifacts/{path*}", api_get_artifact, ROUTE_PROJECT, 0, "One of them" },
	{ "GET", "/v1/runs/{run}", api_get_run, ROUTE_PROJECT, 0, "One run" },
	{ "GET", "/v1/ws", api_ws, ROUTE_PROJECT, 0, "The real-time channel: a WebSocket, subprotocol signalbox.v1" },
	{ "POST", "/v1/external", api_post_external, ROUTE_PROJECT, EXTERNAL_BODY_MAX, "One message of an agent that Signalbox did not start, as on the channel" },
	{ "GET", "/v1/external", api_get_external, ROUTE_PROJECT, 0, "Agents that Signalbox did not start, and state files that could not be followed" },
	{ "GET", "/v1/agents", api_agents, ROUTE_PROJECT, 0, "Adapters and what each can do" },
	{ "GET", "/v1/reconcile", api_reconcile, ROUTE_SERVER, 0, "What the last comparisons of rows, processes and directories found" },
	{ "GET", "/v1/doctor", api_doctor, ROUTE_SERVER, 0, "What the server needs, and whether it has it" },
	{ "POST", "/v1/keys", api_post_key, ROUTE_SERVER, SMALL_BODY_MAX, "Offer a model provider's key; kept in memory only" },
	{ "POST", "/v1/tokens", api_post_token, ROUTE_OWNER, SMALL_BODY_MAX, "Make a token that opens the server over the net" },
	{ "GET", "/v1/tokens", api_list_tokens, ROUTE_OWNER, 0, "Tokens, without what opens" },
	{ "DELETE", "/v1/tokens/{token}", api_delete_token, ROUTE_OWNER, 0, "Revoke one" },
	{ "GET", "/v1/secrets", api_list_secrets, ROUTE_PROJECT, 0, "Names of the credentials for git hosts" },
	{ "PUT", "/v1/secrets/{secret*}", api_put_secret, ROUTE_PROJECT, SMALL_BODY_MAX, "Store one, sealed; it is never shown again" },
	{ "DELETE", "/v1/secrets/{secret*}", api_delete_secret, ROUTE_PROJECT, 0, "Forget one" },
	{ "POST", "/v1/prune", api_prune, ROUTE_SERVER, SMALL_BODY_MAX, "Remove from the cache what nothing needs; tells what went, what stays and why" },
	{ "POST", "/v1/reload", api_reload, ROUTE_OWNER, SMALL_BODY_MAX, "Read the configuration again; tells what changed and what waits for a restart" },
	{ "GET", "/v1/openapi.json", api_get_openapi, ROUTE_OPEN, 0, "This description" },
	{ "GET", "/logs/{task}/{name}", api_get_log, ROUTE_PROJECT, 0, "Stable links: prompt.txt, llm_response.txt, diff.patch, setup.log" },
	{ "GET", "/healthz", api_healthz, ROUTE_OPEN, 0, "This process answers" },
	{ "GET", "/readyz", api_readyz, ROUTE_OPEN, 0, "What it needs is there; ?verbose lists it" },
	{ "GET", "/version", api_version, ROUTE_OPEN, 0, "Version and protocol" },
	{ "GET", "/metrics", api_metrics, ROUTE_SERVER, 0, "Prometheus metrics" },
	{ 0 },
};

const struct http_route api_runner_routes[] = {
	{ "POST", "/runner/v1/runs/{run}/events", api_runner_events, ROUTE_RUNNER, RUNNER_BODY_MAX, "A numbered batch of events, live lines and a beat" },
	{ "GET", "/runner/v1/runs/{run}/commands", api_wait_commands, ROUTE_RUNNER, 0, "Numbered commands after a number; long poll" },
	{ 0 },
};
