/* What is asked, what is allowed and what is refused without asking.  Rules decide what is asked; the walls decide what is possible: a rule
 * reads what the agent says that it will do, so it spares people questions and is no protection against a hostile agent.
 *
 * approvals:
 *   ask: always | on-request | never     always: every command and patch; on-request: what the agent itself wants asked; never (the default)
 *   rules:                               the first that fits decides, before `ask`
 *     - {name: tests, allow: {command: "make test"}}         words; `*` fits any one word, a last `**` any rest
 *     - {name: no-push, deny: {command: "git push **"}}
 *     - {name: docs, allow: {path: "**.md"}}                 patches: every file must fit; `*` within a name, `**` across
 *     - {name: secrets, deny: {path: "**.env"}}
 *   deadline: 24h        how long a person has
 *   at_deadline: reject | fail | default        default: the first option of each question (a command is rejected)
 *   answer: "..."                                with default: this text instead
 *
 * A command line is split into its simple commands (also the string of `bash -lc "..."`); allow needs a rule for each of them, deny is
 * enough for one.  What cannot be split with certainty (expansions that make commands, here-documents, redirections to files, ...) is never
 * allowed by a rule: it is asked, or goes its way under `never`.  What may become something that a rule refuses, as `git $X` may become
 * `git push`, is asked, or refused under `never`.  Nothing outside the workspace and nothing in .git is allowed by a rule. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include <stdbool.h>

#define POLICY_RULES_MAX 200
#define POLICY_SESSION_MAX 500 /* "approve for this session" that are remembered in one run */

struct policy;
enum policy_verdict { POLICY_ASK, POLICY_ALLOW, POLICY_DENY };

/* Checks and parses; NULL or an empty object: never ask. The error names the member by its path. */
MUST_USE enum err_code policy_new(const struct js *approvals, struct policy **ret, struct error *e);
void policy_free(struct policy *p);
/* `kind` and `data` as in struct agent_ask. *ret_rule: the name of the rule that decided ("never ask", "session", or the rule's own), borrowed. Questions and
 * elicitations are always POLICY_ASK. */
enum policy_verdict policy_judge(const struct policy *p, const char *kind, const struct js *data, const char **ret_rule);
/* A person said "for this session": the same command, or patches of the same files, are allowed from now on in this run. */
void policy_remember(struct policy *p, const char *kind, const struct js *data);
/* What the agent is told to do: with rules under `never`, everything must be asked for the rules to see it. */
const char *policy_agent_mode(const struct policy *p); /* "always", "on-request", "never" */
int64_t policy_deadline_ms(const struct policy *p);    /* 0: none */
const char *policy_at_deadline(const struct policy *p); /* "reject", "fail", "default" */
const char *policy_default_answer(const struct policy *p); /* or NULL */
