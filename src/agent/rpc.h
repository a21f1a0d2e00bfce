/* JSON-RPC, one object a line: both sides call.  Ids of our calls are counted by us; the agent's requests have ids of its own.  Whatever a line holds, it is
 * answered, told or kept raw, and nothing grows without a limit.  Only for this room. */
#pragma once
#include "agent/backend.h"

#define RPC_CALLS_MAX 64 /* calls of ours that wait for their reply */
#define RPC_BUSY_TRIES 10 /* of one call that the other side is too busy for */
#define RPC_NO_METHOD (-32601)
#define RPC_BAD_REQUEST (-32600)

struct rpc;
struct rpc_call;
/* A reply came: `result`, or `refused` in words with its code; both NULL: `result` was null. */
typedef void rpc_done(struct agent *a, const struct rpc_call *call, const struct js *result, const char *refused, int64_t code);

struct rpc_call {
	int64_t id;
	const char *method; /* static */
	rpc_done *done;
	struct js *params; /* kept where a call may have to be made again, else NULL */
	char *message; /* id of the person's message that it carries, or NULL */
	int tries;
};

struct rpc {
	struct agent *agent;
	bool bare;	   /* messages without the member `jsonrpc` */
	int64_t busy_code; /* what a call is refused with that found a full queue and did nothing: it is made again; 0: no such code */
	/* Both false: it is not known. A request that is known is answered by whoever knows it. */
	bool (*request)(struct agent *a, const char *method, const struct js *id, const struct js *params);
	bool (*notice)(struct agent *a, const char *method, const struct js *params);
	int64_t last;
	struct rpc_call calls[RPC_CALLS_MAX];
	size_t count;
};

/* message may be NULL. Refused at once, by `done`, when too many wait. */
void rpc_call(struct rpc *r, const char *method, struct js *params_taken, rpc_done *done, const char *message);
void rpc_notify(struct rpc *r, const char *method, struct js *params_taken); /* params_taken NULL: without any */
void rpc_answer(struct rpc *r, const struct js *id, struct js *result_taken);
void rpc_refuse(struct rpc *r, const struct js *id, int code, const char *why);
void rpc_line(struct rpc *r, const char *line, size_t len);
void rpc_release(struct rpc *r);
void rpc_drop(struct rpc *r, const char *why); /* no reply will come: people whose words were on the way are told */
