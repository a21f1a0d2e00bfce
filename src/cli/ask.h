/* Gates as the command line knows them: found, shown, and settled by what people type. */
#pragma once
#include "cli/cli.h"

#define ASK_DIFF_ANY SIZE_MAX

/* By id, by the unique beginning of one, or by a task's name or id when that task has exactly one open gate. Connects when needed. */
MUST_USE enum err_code ask_find(struct cli *c, const char *ref, struct js **ret_gate, struct error *e);
MUST_USE enum err_code ask_get(struct cli *c, const char *id, struct js **ret_gate, struct error *e);
/* Sends a decision: the API's body, borrowed. */
MUST_USE enum err_code ask_decide(struct cli *c, const struct js *gate, const struct js *body, struct js **ret_gate, struct error *e);
/* The newest `max` gates, open ones only or all; *ret is an array. */
MUST_USE enum err_code ask_list(struct cli *c, const char *task, bool all, struct js **ret, bool *ret_more, struct error *e);

bool ask_is_open(const struct js *gate);
bool ask_takes(const struct js *gate, const char *choice);
const struct js *ask_questions(const struct js *gate);
bool ask_is_secret(const struct js *question);
bool ask_takes_several(const struct js *question); /* more than one of its options */
const char *ask_id(const struct js *gate);
const char *ask_task(const struct js *gate); /* its name or id */

/* What is asked, in one line. */
void ask_add_title(struct strbuf *out, const struct js *gate);
/* "approved by me at ..." */
void ask_add_settled(struct strbuf *out, const struct js *gate);
/* What it is about: command, files and diff (so many lines of it), permissions, message. Each line indented. */
void ask_add_matter(struct strbuf *out, const struct js *gate, size_t diff_lines);
/* A question and its options. */
void ask_add_question(struct strbuf *out, const struct js *question, size_t number);
/* The ways to reply, as commands. */
void ask_add_replies(struct strbuf *out, const struct js *gate);

/* Typed text as an answer to one question: the label of an option, its number, or words. "1,3" are two where several may be; a number that no option has
 * is an error, but where options are numbers themselves, or behind "=", which takes what follows as it is ("=10,=20": two of them). Without options, and
 * for a secret in free words, the text is taken to the letter. No error tells what a secret was. */
MUST_USE enum err_code ask_take_text(const struct js *question, const char *text, struct js *answers, struct error *e);
/* Typed text as the value of one member of an elicitation's schema. */
MUST_USE enum err_code ask_take_value(const char *name, const struct js *schema, const char *text, struct js *content, struct error *e);
