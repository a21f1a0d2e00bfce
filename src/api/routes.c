/* THE table: every way in over HTTP.  OpenAPI, help and tests are made from it. */
#include "api/api.h"

#define TASK_BODY_MAX ((size_t)4 << 20)
#define RUNNER_BODY_MAX ((size_t)16 << 20)
#define SMALL_BODY_MAX ((size_t)64 << 10)
#define EXTERNAL_BODY_MAX ((size_t)1 << 20)

const struct http_route api_routes[] = {
	{ "POST", "/v1/tasks", api_post_task, ROUTE_USER, TASK_BODY_MAX, "Submit a task; answers when it is durable" },
	{ "GET", "/v1/tasks", api_list_tasks, ROUTE_USER, 0, "List tasks, newest first" },
	{ "GET", "/v1/tasks/{task}", api_get_task, ROUTE_USER, 0, "One task" },
	{ "DELETE", "/v1/tasks/{task}", api_delete_task, ROUTE_USER, 0, "Remove an ended task and its directory" },
	{ "POST", "/v1/tasks/{task}/cancel", api_cancel_task, ROUTE_USER, SMALL_BODY_MAX, "End a task; its partial diff is kept" },
	{ "POST", "/v1/tasks/{task}/retry", api_retry_task, ROUTE_USER, SMALL_BODY_MAX, "Begin an ended task again: a new attempt in its workspace" },
	{ "POST", "/v1/tasks/{task}/messages", api_post_message, ROUTE_USER, SMALL_BODY_MAX * 8, "Say something: the next turn of an ended or waiting task" },
	{ "GET", "/v1/gates", api_list_gates, ROUTE_USER, 0, "Questions to people; ?state=blocked gives the open ones" },
	{ "POST", "/v1/gates/{gate}/decision", api_decide_gate, ROUTE_USER, SMALL_BODY_MAX * 8, "Settle one, once" },
	{ "GET", "/v1/tasks/{task}/wait", api_wait_task, ROUTE_USER, 0, "Answer when the task ends, waits for a human, or the time is up" },
	{ "GET", "/v1/tasks/{task}/runs", api_list_runs, ROUTE_USER, 0, "The task's runs" },
	{ "GET", "/v1/tasks/{task}/events", api_get_events, ROUTE_USER, 0, "The log from a cursor on: JSON page, JSONL or SSE by Accept" },
	{ "GET", "/v1/tasks/{task}/diff", api_get_diff, ROUTE_USER, 0, "The changes as a patch" },
	{ "GET", "/v1/tasks/{task}/artifacts", api_list_artifacts, ROUTE_USER, 0, "Files handed in" },
	{ "GET", "/v1/tasks/{task}/artifacts/{path*}", api_get_artifact, ROUTE_USER, 0, "One of them" },
	{ "GET", "/v1/runs/{run}", api_get_run, ROUTE_USER, 0, "One run" },
	{ "GET", "/v1/ws", api_ws, ROUTE_USER, 0, "The real-time channel: a WebSocket, subprotocol signalbox.v1" },
	{ "POST", "/v1/external", api_post_external, ROUTE_USER, EXTERNAL_BODY_MAX, "One message of an agent that Signalbox did not start, as on the channel" },
	{ "GET", "/v1/external", api_get_external, ROUTE_USER, 0, "Agents that Signalbox did not start, and state files that could not be followed" },
	{ "GET", "/v1/agents", api_agents, ROUTE_USER, 0, "Adapters and what each can do" },
	{ "GET", "/v1/reconcile", api_reconcile, ROUTE_USER, 0, "What the last comparisons of rows, processes and directories found" },
	{ "GET", "/v1/doctor", api_doctor, ROUTE_USER, 0, "What the server needs, and whether it has it" },
	{ "POST", "/v1/keys", api_post_key, ROUTE_USER, SMALL_BODY_MAX, "Offer a model provider's key; kept in memory only" },
	{ "GET", "/logs/{task}/{name}", api_get_log, ROUTE_USER, 0, "Stable links: prompt.txt, llm_response.txt, diff.patch, setup.log" },
	{ "GET", "/healthz", api_healthz, ROUTE_OPEN, 0, "This process answers" },
	{ "GET", "/readyz", api_readyz, ROUTE_OPEN, 0, "What it needs is there; ?verbose lists it" },
	{ "GET", "/version", api_version, ROUTE_OPEN, 0, "Version and protocol" },
	{ "GET", "/metrics", api_metrics, ROUTE_USER, 0, "Prometheus metrics" },
	{ 0 },
};

const struct http_route api_runner_routes[] = {
	{ "POST", "/runner/v1/runs/{run}/events", api_runner_events, ROUTE_RUNNER, RUNNER_BODY_MAX, "A numbered batch of events, live lines and a beat" },
	{ "GET", "/runner/v1/runs/{run}/commands", api_wait_commands, ROUTE_RUNNER, 0, "Numbered commands after a number; long poll" },
	{ 0 },
};
