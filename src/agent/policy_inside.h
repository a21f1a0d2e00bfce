/* Between policy.c, which knows the settings, and policy_match.c, which knows what fits a rule. */
#pragma once
#include "agent/policy.h"

#define POLICY_PATTERN_MAX 1024 /* bytes */
#define POLICY_NAME_MAX 64	/* bytes */
#define POLICY_ANSWER_MAX 65536 /* bytes */
#define POLICY_DEADLINE_MIN_MS 1000
#define POLICY_DEADLINE_MAX_MS (366ll * 24 * 3600 * 1000)

struct policy_rule {
	char *name;
	bool deny;
	char **words; /* of a command, or NULL */
	size_t word_count;
	bool rest;    /* ** at the end */
	char *path;
};

struct policy {
	const char *mode, *at_deadline; /* static words */
	int64_t deadline_ms;
	char *answer;
	struct policy_rule *rules;
	size_t rule_count;
	struct js *session; /* what a person allowed for the whole run */
};

struct judged {
	enum policy_verdict verdict;
	const char *rule;    /* that decided */
	const char *perhaps; /* the first that would refuse if the line is what it may be; NULL: none */
};

/* All of a command is there, it is one to run and not text for one that runs, and nothing beyond it is asked for. */
bool policy_is_whole(const struct js *data);
struct judged policy_judge_command(const struct policy *p, const struct js *data);
struct judged policy_judge_patch(const struct policy *p, const struct js *data);
/* The paths that one file of a patch touches, as they are told. */
void policy_add_paths(const struct js *file, struct js *out);
