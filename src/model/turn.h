/* What a Responses or Messages request asks of the scripted model: the prompt that is being worked on, how far the work is (counted from the
 * tool outputs behind that prompt), what the last tool said, and which tools are offered.  Borrows from the request. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TURN_POLL_PREFIX "poll_" /* calls with such an id only wait on for a command; they are no steps */
#define TURN_FINAL_PREFIX "final_" /* the call that gives the final answer is no step either */
#define TURN_INPUT_ITEMS_MAX 20000
#define TURN_OUTPUT_TEXT_MAX ((size_t)1 << 20) /* bytes of a tool's output that `expect` can see */

struct turn {
	const struct js *request;
	struct js *said_as_responses; /* a Messages request; NULL: it was a Responses request */
	const char *model;
	bool stream;
	char *prompt;		     /* the last thing a human said */
	size_t prompt_index;	     /* its place in the input */
	size_t position;	     /* tool calls answered since */
	char *last_output;	     /* "" when there is none */
	int64_t running_session;     /* of a command that goes on after its call was answered; -1: none */
	const struct js *schema;     /* of text.format json_schema, or NULL */
	const char *final_tool;	     /* the final answer is a call of this tool; NULL: a message */
	bool final_given;	     /* that call was answered */
	char *directory;	     /* where the agent works, as its request says; NULL: it does not */
	struct js *tools;	     /* flat list of {type, name, namespace}, namespaces opened */
};

MUST_USE enum err_code turn_read(const struct js *request, struct turn *ret, struct error *e);
MUST_USE enum err_code turn_read_messages(const struct js *request, struct turn *ret, struct error *e);
void turn_release(struct turn *t);
#define AUTO_TURN __attribute__((cleanup(turn_release)))

bool turn_offers(const struct turn *t, const char *type, const char *name); /* name NULL: any of that type */
const char *turn_namespace(const struct turn *t, const char *name); /* in which a tool of that name is offered, or NULL */
/* "exec_command, update_plan, ..." for messages. */
void turn_tool_names(const struct turn *t, struct strbuf *out);
