/* What is asked: command lines are taken apart as a shell would, rules fit what they say, and nothing else is ever allowed. */
#include "agent/glob.h"
#include "agent/policy.h"
#include "agent/shell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/strbuf.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* A split as text: commands behind each other with a newline, words with |, open words marked by what they are. */
static char *split_text(const char *line)
{
	struct shell_split s;
	struct strbuf out = STRBUF_INIT;
	shell_split(line, strlen(line), &s);
	if (s.why)
		strbuf_adds(&out, "?");
	for (size_t i = 0; i < s.count; i++) {
		strbuf_adds(&out, i ? "\n" : "");
		for (size_t k = 0; k < s.commands[i].count; k++) {
			const struct shell_word *w = &s.commands[i].words[k];
			strbuf_addf(&out, "%s%s%s", k ? "|" : "", w->open == SHELL_MANY ? "**" : w->open == SHELL_ONE ? "*" : "", w->text);
		}
	}
	shell_split_release(&s);
	return strbuf_detach(&out);
}

struct split_case {
	const char *line, *expected; /* "?" in front: not certain */
};

static void check_splits(const struct split_case *cases, size_t n)
{
	size_t wrong = 0;
	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *got = split_text(cases[i].line);
		if (str_eq(got, cases[i].expected))
			continue;
		print_error("line: %s\n got: %s\nnot: %s\n", cases[i].line, got, cases[i].expected);
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

static void what_is_certain_is_split_as_bash_does(void **state)
{
	static const struct split_case cases[] = {
		{ "make test", "make|test" }, { "  make\ttest  ", "make|test" }, { "make test;", "make|test" }, { "make test\n", "make|test" },
		{ "cd x && make test | tee log", "cd|x\nmake|test\ntee|log" }, { "a || b; c & d", "a\nb\nc\nd" }, { "a\nb\n\nc", "a\nb\nc" }, { "a &&\n\n b", "a\nb" },
		{ "a |& b", "a\nb" }, { "a &", "a" }, { "! a", "a" }, { "! a | b", "a\nb" }, { "time make", "make" }, { "time -p make", "make" },
		{ "(a; b)", "a\nb" }, { "{ a; b; }", "a\nb" }, { "{ a\n}", "a" }, { "(a) | (b)", "a\nb" }, { "(a; (b; { c; }))", "a\nb\nc" }, { "(a) 2>&1 | b", "a\nb" },
		{ "bash -lc 'make test'", "make|test" }, { "bash -c \"make test\"", "make|test" }, { "/bin/bash -lc 'make test'", "make|test" }, { "sh -c 'a; b'", "a\nb" },
		{ "bash -l -c 'a'", "a" }, { "bash --norc -c 'a'", "a" }, { "bash -euo pipefail -c 'a'", "a" }, { "bash -c -- 'a'", "a" }, { "bash -c -l 'a'", "a" },
		{ "bash -lc \"bash -c 'sh -c a'\"", "a" }, { "bash -lc 'cd x && git push'", "cd|x\ngit|push" }, { "bash -c 'a' && b", "a\nb" }, { "bash -c ''", "" },
		{ "A=b bash -c 'make'", "A=b\nmake" }, { "bash run.sh x", "bash|run.sh|x" }, { "bash", "bash" }, { "bash -l run.sh", "bash|-l|run.sh" }, { "./bash -c 'a b'", "./bash|-c|a b" },
		{ "A=b cmd", "A=b|cmd" }, { "A=b B='c d' cmd x", "A=b|B=c d|cmd|x" }, { "A=b", "A=b" }, { "A+=b c", "A+=b|c" }, { "A= c", "A=|c" }, { "c A=b", "c|A=b" },
		{ "\"A\"=b c", "A=b|c" }, { "A\\=b c", "A=b|c" }, { "1A=b c", "1A=b|c" }, { "a-b=c d", "a-b=c|d" },
		{ "env A=b make", "A=b|make" }, { "env -i A=b -u X make", "A=b|-u|X|make" }, { "env -u X -i A=b make x", "A=b|make|x" }, { "env", "env" }, { "env -i", "env|-i" }, { "/usr/bin/env make", "make" },
		{ "nice make", "make" }, { "nice -n 5 make", "make" }, { "nice -5 make", "make" }, { "nice --adjustment=5 make", "make" }, { "nohup make x", "make|x" },
		{ "timeout 5 make", "make" }, { "timeout -k 1 -s KILL 5m make x", "make|x" }, { "timeout --signal=KILL 5 make", "make" }, { "timeout --foreground 5 nice env A=b make", "A=b|make" },
		{ "command make", "make" }, { "command -p make", "make" }, { "command -v make", "command|-v|make" }, { "stdbuf -oL make", "make" }, { "builtin cd x", "cd|x" }, { "setsid -w make", "make" },
		{ "ionice -c 3 -n7 make", "make" }, { "/usr/bin/time -v make", "make" }, { "timeout 5", "timeout|5" }, { "./env make", "./env|make" },
		{ "g'i't pu\"s\"h", "git|push" }, { "g\\it push", "git|push" }, { "git pu\\\nsh", "git|push" }, { "git \\\n push", "git|push" }, { "gi''t", "git" }, { "'git push'", "git push" },
		{ "\"git\\\npush\"", "gitpush" }, { "'git\\\npush'", "git\\\npush" }, { "$'git' $'a b'", "git|a b" }, { "$'\\x67it' $'\\160ush'", "git|push" }, { "$'a\\nb\\'c'", "a\nb'c" }, { "$'\\z'", "\\z" },
		{ "a \"b\\$c\" \"d\\e\"", "a|b$c|d\\e" }, { "a \"$\" $ \"$'x'\" $% ", "a|$|$|$'x'|$%" }, { "a '' \"\"", "a||" }, { "''", "" }, { "a\\ b", "a b" }, { "a\\;b", "a;b" },
		{ "git\u00a0push", "git\u00a0push" }, { "git\u2003push", "git\u2003push" }, { "git\u200bpush", "git\u200bpush" }, { "git\rpush", "git\rpush" }, { "git\vpush", "git\vpush" },
		{ "a # b; c", "a" }, { "a #b\nc", "a\nc" }, { "a#b", "a#b" }, { "# a", "" }, { "a '#' b", "a|#|b" }, { "a;#b\nc", "a\nc" }, { "a # b \\\nc", "a\nc" },
		{ "echo hi!", "echo|hi!" }, { "echo !!", "echo|!!" }, { "echo \"!x\"", "echo|!x" }, { "a !", "a|!" }, { "a } {", "a|}|{" }, { "a if then", "a|if|then" },
		{ "a >/dev/null", "a" }, { "a >/dev/null 2>&1 b", "a|b" }, { "2>/dev/null a", "a" }, { "a &>/dev/null", "a" }, { "a &>>/dev/null", "a" }, { "a </dev/null", "a" }, { "a >| /dev/null", "a" },
		{ "a 1>&2", "a" }, { "a >&2", "a" }, { "a 2>>'/dev/null'", "a" }, { "a 2 >/dev/null", "a|2" }, { "a \"2\">/dev/null", "a|2" },
		{ "a $X", "a|**$X" }, { "a \"$X\"", "a|*$X" }, { "a ${X}y", "a|**${X}y" }, { "a \"$@\"", "a|**$@" }, { "a \"$*\" $? $1", "a|*$*|**$?|**$1" }, { "a '$X'", "a|$X" }, { "a \\$X", "a|$X" },
		{ "a *.c x?", "a|***.c|**x?" }, { "a '*'", "a|*" }, { "a [ab]", "a|**[ab]" }, { "a [", "a|[" }, { "[ -f x ]", "[|-f|x|]" }, { "a {b,c}", "a|**{b,c}" }, { "a {}", "a|{}" }, { "a '{b,c}'", "a|{b,c}" },
		{ "a ~ ~/x x~ HEAD~1 b=~", "a|*~|*~/x|x~|HEAD~1|*b=~" }, { "a '~'", "a|~" }, { "bash -c 'a $X'", "a|**$X" }, { "bash -c \"a \\$X\"", "a|**$X" },
		{ "git push", "git|push" }, { "git -C d push", "git|-C|d|push" }, { "git commit -c HEAD", "git|commit|-c|HEAD" }, { "set -euo pipefail; a", "set|-euo|pipefail\na" }, { "tar czf a.tgz d", "tar|czf|a.tgz|d" },
		{ "find . -name '*.c'", "find|.|-name|*.c" }, { "make -f evil test", "make|-f|evil|test" }, { "go test ./...", "go|test|./..." }, { "sort -u f", "sort|-u|f" }, { "printf '%s\\n' x", "printf|%s\\n|x" },
	};
	(void)state;
	check_splits(cases, sizeof(cases) / sizeof(cases[0]));
}

static void what_is_not_certain_says_so_and_shows_what_can_be_seen(void **state)
{
	static const struct split_case cases[] = {
		{ "echo $(git push)", "?git|push\necho|**" }, { "echo \"$(git push)\"", "?git|push\necho|*" }, { "echo `git push`", "?git|push\necho|**" }, { "echo \"`git push`\"", "?git|push\necho|*" },
		{ "echo `echo \\`git push\\``", "?git|push\necho|**\necho|**" }, { "$(echo git) push", "?echo|git\n**|push" }, { "a <(git push)", "?git|push\na" }, { "a >(git push)", "?git|push\na" },
		{ "cat <<E\ngit push\nE\nls", "?cat\nls" }, { "cat <<-'E' | b\n\tx\n\tE\nls", "?cat\nb\nls" }, { "cat <<<x", "?cat" }, { "a >f", "?a" }, { "a >> f b", "?a|b" }, { "a 2>f", "?a" }, { "a <f", "?a" },
		{ "a &>f", "?a" }, { "a >&f", "?a" }, { "a >&3", "?a" }, { "a >&-", "?a" }, { "a >$X", "?a" }, { "a >/dev/nul*", "?a" }, { "a >/dev/null2", "?a" }, { "a <>/dev/null", "?a" }, { "a >//dev/null", "?a" },
		{ "$X push", "?**$X|push" }, { "\"$X\" push", "?*$X|push" }, { "gi* push", "?**gi*|push" }, { "{git,push}", "?**{git,push}" }, { "~/x y", "?*~/x|y" }, { "A=b $X", "?A=b|**$X" }, { "g$X", "?**g$X" },
		{ "f() { git push; }", "?f\ngit|push" }, { "f () ( git push )", "?f\ngit|push" }, { "function f { git push; }", "?f|{|git|push" }, { "alias x='git push'", "?git|push\nalias|x=git push" },
		{ "eval git push", "?git|push\neval|git|push" }, { "eval 'git' \"push x\"", "?git|push|x\neval|git|push x" }, { "exec git push", "?exec|git|push" }, { "source x", "?source|x" }, { ". x", "?.|x" },
		{ "xargs git push", "?xargs|git|push" }, { "a | xargs -n1 sh -c 'git push'", "?a\ngit|push\nxargs|-n1|sh|-c|git push" }, { "sudo -u x git push", "?sudo|-u|x|git|push" }, { "/usr/bin/sudo a", "?/usr/bin/sudo|a" },
		{ "env -S 'git push'", "?git|push\nenv|-S|git push" }, { "env -C / make", "?env|-C|/|make" }, { "env $X make", "?env|**$X|make" }, { "timeout $X make", "?timeout|**$X|make" }, { "timeout --sig=9 5 make", "?timeout|--sig=9|5|make" },
		{ "nice --adj 5 make", "?nice|--adj|5|make" }, { "command -x make", "?command|-x|make" }, { "find . -exec git push ';'", "?find|.|-exec|git|push|;" }, { "find . -okdir x", "?find|.|-okdir|x" }, { "find $X", "?find|**$X" },
		{ "git -c alias.x='!sh y' x", "?git|-c|alias.x=!sh y|x" }, { "git -calias.x=y x", "?git|-calias.x=y|x" }, { "git --config-env=a=b x", "?git|--config-env=a=b|x" }, { "git --exec-path=/tmp x", "?git|--exec-path=/tmp|x" },
		{ "git $X push", "?git|**$X|push" }, { "git -C $X push", "?git|-C|**$X|push" }, { "tar cf x --to-command=sh y", "?tar|cf|x|--to-command=sh|y" }, { "tar cf x --checkpoint-act=exec=sh", "?tar|cf|x|--checkpoint-act=exec=sh" },
		{ "tar cIf x y", "?tar|cIf|x|y" }, { "tar -cvIf x y", "?tar|-cvIf|x|y" }, { "tar cf x *", "?tar|cf|x|***" }, { "rsync -ave ssh a b", "?rsync|-ave|ssh|a|b" }, { "make --eval=x", "?make|--eval=x" }, { "go test -exec=x", "?go|test|-exec=x" },
		{ "ssh h 'git push'", "?git|push\nssh|h|git push" }, { "su -c 'git push'", "?git|push\nsu|-c|git push" }, { "trap 'git push' EXIT", "?git|push\ntrap|git push|EXIT" }, { "watch a", "?watch|a" }, { "parallel a", "?parallel|a" },
		{ "bash -c \"a $X\"", "?a|**$X\nbash|-c|*a $X" }, { "bash -c 'a' x y", "?bash|-c|a|x|y" }, { "bash -ic a", "?bash|-ic|a" }, { "bash -xc a", "?bash|-xc|a" }, { "bash +e -c a", "?bash|+e|-c|a" }, { "bash -s", "?bash|-s" },
		{ "bash --rcfile x", "?bash|--rcfile|x" }, { "bash -O extglob -c a", "?bash|-O|extglob|-c|a" }, { "bash $X a", "?bash|**$X|a" }, { "bash -c", "?bash|-c" }, { "zsh -c 'git push'", "?git|push\nzsh|-c|git push" }, { "fish -c 'a b'", "?a|b\nfish|-c|a b" },
		{ "sh -c \"\\$'git' push\"", "?git|push" }, { "sh -c 'a |& b'", "?a\nb" }, { "sh -c 'a &>/dev/null'", "?a" }, { "sh -c 'A+=b c'", "?A+=b|c" }, { "sh -c 'time a'", "?a" }, { "bash -c 'a' 'unclosed", "?bash|-c|a|unclosed" },
		{ "if a; then git push; fi", "?a\ngit|push" }, { "for f in a b; do git push; done", "?f|in|a|b\ngit|push" }, { "while a; do b; done", "?a\nb" }, { "case x in a) git push;; esac", "?x|in|a\ngit|push" }, { "[[ a ]]", "?a|]]" },
		{ "((a))", "?a" }, { "coproc git push", "?git|push" }, { "A=b if", "?A=b|if" }, { ">/dev/null if", "?" }, { "A=b { c; }", "?A=b|{|c" },
		{ "a 'b", "?a|b" }, { "a \"b", "?a|b" }, { "a $'b", "?a|b" }, { "a \\", "?a|" }, { "(a", "?a" }, { "{ a", "?a" }, { "a )", "?a" }, { "()", "?" }, { "{ }", "?" }, { "(a) b", "?a\nb" }, { "a (b)", "?a\nb" },
		{ "a &&", "?a" }, { "&& a", "?a" }, { "a | | b", "?a\nb" }, { "a ;; b", "?a\nb" }, { ";", "?" }, { "!", "?" }, { "time", "?" }, { "a & & b", "?a\nb" }, { "a &\\\n& b", "?a\nb" }, { "a | time b", "?a\nb" },
		{ "a ${X:-$(git push)}", "?git|push\na|**${X:-}" }, { "a ${X@P}", "?a|**${X@P}" }, { "a $((1+b))", "?1+b\na|**" }, { "a $[1]", "?a|**$[1]" }, { "a $\"b\"", "?a|**$b" }, { "a $\\\n(b)", "?a|**$\nb" },
		{ "a[1]=x b", "?**a[1]=x|b" }, { "a[x b", "?a[x|b" }, { "A=(x y) b", "?A=\nx|y\nb" }, { "a ++(x)", "?a|++\nx" }, { "%1", "?%1" }, { "$'\\x00' a", "?|a" }, { "$'\\u0067it'", "?\\u0067it" },
		{ "PS4='$(git push)' a", "?PS4=$(git push)|a" }, { "test -v 'a[$(x)]'", "?test|-v|a[$(x)]" }, { "printf -v \"$X\" y", "?printf|-v|*$X|y" }, { "printf -v PATH x; make", "?printf|-v|PATH|x\nmake" }, { "read PATH; make", "?read|PATH\nmake" }, { "getopts a b", "?getopts|a|b" }, { "[ $X = a ]", "?[|**$X|=|a|]" }, { "let a=1", "?let|a=1" }, { "declare -i x=1", "?declare|-i|x=1" },
		{ "set -x", "?set|-x" }, { "set -k", "?set|-k" }, { "shopt -s extglob", "?shopt|-s|extglob" }, { "hash -p /tmp/x make", "?hash|-p|/tmp/x|make" }, { "enable -f x y", "?enable|-f|x|y" }, { "mapfile -C x", "?mapfile|-C|x" },
		{ "a\001b", "?" }, { "export $X", "?export|**$X" },
	};
	(void)state;
	check_splits(cases, sizeof(cases) / sizeof(cases[0]));
}

static void a_line_over_a_limit_is_not_certain(void **state)
{
	AUTO_STRBUF struct strbuf deep = STRBUF_INIT, many = STRBUF_INIT, words = STRBUF_INIT, big = STRBUF_INIT;
	struct strbuf *const lines[] = { &deep, &many, &words, &big };
	(void)state;
	for (int i = 0; i < 30000; i++)
		strbuf_adds(&deep, "(");
	for (int i = 0; i <= SHELL_COMMANDS_MAX; i++)
		strbuf_adds(&many, "a;");
	for (int i = 0; i <= SHELL_WORDS_MAX; i++)
		strbuf_adds(&words, "a ");
	for (size_t i = 0; i <= SHELL_LINE_MAX; i++)
		strbuf_addc(&big, 'a');
	for (size_t i = 0; i < 4; i++) {
		struct shell_split s;
		shell_split(strbuf_str(lines[i]), lines[i]->len, &s);
		assert_non_null(s.why);
		assert_true(s.count <= SHELL_COMMANDS_MAX);
		shell_split_release(&s);
	}
}

static void patterns_fit_names_and_paths(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool word, path;
	} cases[] = {
		{ "a", "a", 1, 1 }, { "a", "b", 0, 0 }, { "", "", 1, 1 }, { "a", "", 0, 0 }, { "*", "", 1, 1 }, { "*", "a/b", 1, 0 }, { "*.md", "a.md", 1, 1 }, { "*.md", "x/a.md", 1, 0 }, { "?", "/", 1, 0 },
		{ "a*b*c", "aXbYc", 1, 1 }, { "a*b*c", "abcbcX", 0, 0 }, { "a*b", "a/b", 1, 0 }, { "**.md", "a.md", 1, 1 }, { "**.md", "x/y/a.md", 1, 1 }, { "**.md", "a.mdx", 0, 0 }, { "docs/**", "docs/a/b", 1, 1 },
		{ "docs/**", "docs", 0, 0 }, { "**/a", "a", 0, 1 }, { "**/a", "x/y/a", 1, 1 }, { "**/a", "xa", 0, 0 }, { "x/**/a", "x/a", 0, 1 }, { "x/**/a", "x/y/z/a", 1, 1 }, { "x/**/a", "x/ya", 0, 0 },
		{ "**/*.c", "a.c", 0, 1 }, { "**/*.c", "x/y/a.c", 1, 1 }, { "src/*/x", "src/a/x", 1, 1 }, { "src/*/x", "src/a/b/x", 1, 0 }, { "[a]", "a", 0, 0 }, { "[a]", "[a]", 1, 1 }, { "**", "", 1, 1 }, { "**", "a/b", 1, 1 },
		{ "a**b", "a/x/b", 1, 1 }, { "**/b/**/d", "a/b/c/d", 1, 1 }, { "**/b/**/d", "b/d", 0, 1 }, { "**/b/**/d", "a/c/d", 0, 0 }, { "*a*/b", "xay/b", 1, 1 }, { "a/*", "a/", 1, 1 },
	};
	size_t wrong = 0;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (glob_word(cases[i].pattern, cases[i].text) == cases[i].word && glob_path(cases[i].pattern, cases[i].text) == cases[i].path)
			continue;
		print_error("%s on %s\n", cases[i].pattern, cases[i].text);
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

static struct js *parse(const char *json)
{
	struct error e = ERROR_INIT;
	struct js *o = js_parse(json, strlen(json), &e);
	if (!o)
		print_error("%s: %s\n", json, e.text);
	assert_non_null(o);
	return o;
}

static struct policy *policy_of(const char *json)
{
	struct error e = ERROR_INIT;
	struct policy *p = NULL;
	AUTO_JS struct js *o = json ? parse(json) : NULL;
	if (policy_new(o, &p, &e))
		print_error("%s\n", e.text);
	assert_non_null(p);
	return p;
}

static struct js *command_data(const char *command)
{
	struct js *o = js_object();
	js_set_str(o, "command", command);
	return o;
}

/* "allow:tests", "deny:no-push", "ask" */
static char *verdict_text(const struct policy *p, const char *kind, const struct js *data)
{
	const char *rule = NULL;
	enum policy_verdict v = policy_judge(p, kind, data, &rule);
	if (v == POLICY_ASK) {
		assert_null(rule);
		return mem_strdup("ask");
	}
	assert_non_null(rule);
	return mem_printf("%s:%s", v == POLICY_ALLOW ? "allow" : "deny", rule);
}

static void check_commands(const char *policy, const struct split_case *cases, size_t n)
{
	struct policy *p = policy_of(policy);
	size_t wrong = 0;
	for (size_t i = 0; i < n; i++) {
		AUTO_JS struct js *data = command_data(cases[i].line);
		AUTO_FREE char *got = verdict_text(p, "command", data);
		if (str_eq(got, cases[i].expected))
			continue;
		print_error("%s: %s, not %s\n", cases[i].line, got, cases[i].expected);
		wrong++;
	}
	policy_free(p);
	assert_int_equal(wrong, 0);
}

#define RULES "\"rules\":[{\"name\":\"status\",\"allow\":{\"command\":\"git push origin docs\"}},{\"name\":\"no-push\",\"deny\":{\"command\":\"git push **\"}}," \
	"{\"name\":\"no-rm\",\"deny\":{\"command\":\"rm -rf *\"}},{\"name\":\"git\",\"allow\":{\"command\":\"git **\"}},{\"name\":\"tests\",\"allow\":{\"command\":\"make test\"}}," \
	"{\"name\":\"one\",\"allow\":{\"command\":\"run *\"}},{\"name\":\"unit\",\"allow\":{\"command\":\"npm run test:*\"}},{\"name\":\"cc\",\"allow\":{\"command\":\"CC=* make test\"}}," \
	"{\"name\":\"cat\",\"allow\":{\"command\":\"cat **\"}},{\"name\":\"docs\",\"allow\":{\"path\":\"**.md\"}}]"

static void rules_decide_commands_in_their_order(void **state)
{
	static const struct split_case cases[] = {
		{ "make test", "allow:tests" }, { "make  'test'", "allow:tests" }, { "bash -lc 'make test'", "allow:tests" }, { "/usr/bin/make test", "allow:tests" }, { "/tmp/make test", "ask" }, { "./make test", "ask" },
		{ "make test x", "ask" }, { "make", "ask" }, { "make -f evil test", "ask" }, { "Make test", "ask" }, { "make\u00a0test", "ask" }, { "make test\u200b", "ask" }, { "make test # x", "allow:tests" },
		{ "make test && make test", "allow:tests" }, { "make test && git status", "allow:tests" }, { "make test && ls", "ask" }, { "make test; git push", "deny:no-push" }, { "make test | cat", "allow:tests" },
		{ "make test > f", "ask" }, { "make test 2>&1 >/dev/null", "allow:tests" }, { "make $X", "ask" }, { "make \"$X\"", "ask" }, { "make tes*", "ask" }, { "make $(echo test)", "ask" }, { "make `echo test`", "ask" },
		{ "git push", "deny:no-push" }, { "git push origin docs", "allow:status" }, { "git push origin main", "deny:no-push" }, { "git pu'sh'", "deny:no-push" }, { "git \\\npush", "deny:no-push" }, { "$'\\x67it' push", "deny:no-push" },
		{ "/tmp/git push", "deny:no-push" }, { "A=b git push", "deny:no-push" }, { "env A=b git push", "deny:no-push" }, { "timeout 5 git push", "deny:no-push" }, { "sudo git push", "deny:no-push" }, { "xargs git push", "deny:no-push" },
		{ "bash -lc 'cd x && git push'", "deny:no-push" }, { "sh -c \"bash -c 'git push'\"", "deny:no-push" }, { "echo $(git push)", "deny:no-push" }, { "eval 'git push'", "deny:no-push" }, { "if a; then git push; fi", "deny:no-push" },
		{ "git -C d push", "deny:no-push" }, { "git -c a=b push", "deny:no-push" }, { "git --git-dir=x push y", "deny:no-push" }, { "find . -exec git push ';'", "deny:no-push" }, { "f() { git push; }; f", "deny:no-push" },
		{ "git $X", "ask" }, { "git pu*", "ask" }, { "git {push,x}", "ask" }, { "$X push", "ask" }, { "xargs git", "ask" }, { "git status", "allow:git" }, { "git log $X", "allow:git" }, { "git log \"$X\" *.c", "allow:git" }, { "git -C d log", "allow:git" },
		{ "git -c alias.x=!sh x", "ask" }, { "git -c core.pager=x log", "ask" }, { "git s$X", "allow:git" }, { "git", "allow:git" }, { "cat <<E\ngit push\nE", "ask" }, { "git commit -m 'git push'", "allow:git" },
		{ "rm -rf x", "deny:no-rm" }, { "rm -rf /", "deny:no-rm" }, { "rm -rf $X", "ask" }, { "rm -rf \"$X\"", "deny:no-rm" }, { "rm -r x", "ask" }, { "rm -rf", "ask" },
		{ "run x", "allow:one" }, { "run 'x y'", "allow:one" }, { "run \"$X\"", "allow:one" }, { "run $X", "ask" }, { "run x y", "ask" }, { "run", "ask" }, { "run *.c", "ask" }, { "run a{b,c}", "ask" }, { "run ~", "allow:one" },
		{ "npm run test:unit", "allow:unit" }, { "npm run test:", "allow:unit" }, { "npm run test", "ask" }, { "npm run test:$X", "ask" }, { "npm run \"test:$X\"", "ask" },
		{ "CI=1 make test", "allow:tests" }, { "CI=1 TZ=UTC git status", "allow:git" }, { "PATH=/tmp make test", "ask" }, { "LD_PRELOAD=x make test", "ask" }, { "GIT_SSH_COMMAND=x git fetch", "ask" }, { "CC=gcc make test", "allow:cc" },
		{ "CC=gcc PATH=x make test", "ask" }, { "LC_ALL=C LANG=de_DE.UTF-8 make test", "allow:tests" }, { "LC_ALL=ja_JP.SJIS make test", "ask" }, { "LANG=$X make test", "ask" },
		{ "/usr/bin/gi? push", "ask" }, { "/opt/*/git push", "ask" }, { "git pu$X", "ask" }, { "git pull$X", "allow:git" }, { "env PATH=. make test", "ask" }, { "CI=1; make test", "allow:tests" }, { "PATH=.; make test", "ask" }, { "CI=1", "ask" }, { "CI=1 bash -c 'make test'", "allow:tests" },
		{ "BASH_ENV=x bash -c 'make test'", "ask" }, { "export PATH=.; make test", "ask" }, { "cd /tmp && make test", "ask" }, { "bash -c 'make test' x", "ask" }, { "bash -c \"$X\"", "ask" }, { "", "ask" }, { "# make test", "ask" },
		{ "'make test'", "ask" }, { "make 'test", "ask" }, { "make test &", "allow:tests" }, { "(make test)", "allow:tests" }, { "{ make test; }", "allow:tests" }, { "! make test", "allow:tests" }, { "time make test", "allow:tests" },
		{ "alias make=x; make test", "ask" }, { "make() { x; }; make test", "ask" }, { "hash -p /tmp/x make; make test", "ask" }, { "source x; make test", "ask" }, { "exec make test", "ask" }, { "trap 'x' EXIT; make test", "ask" },
		{ "make test\ngit push", "deny:no-push" }, { "make test & git push", "deny:no-push" }, { "make test || git push", "deny:no-push" }, { "cat a.md", "allow:cat" }, { "cat <(make test)", "ask" }, { "cat f | bash", "ask" }, { "docs", "ask" },
	};
	(void)state;
	check_commands("{\"ask\":\"always\"," RULES "}", cases, sizeof(cases) / sizeof(cases[0]));
	check_commands("{\"ask\":\"on-request\"," RULES "}", cases, sizeof(cases) / sizeof(cases[0]));
}

static void who_is_never_asked_gets_what_no_rule_may_refuse(void **state)
{
	static const struct split_case cases[] = {
		{ "make test", "allow:tests" }, { "ls > f", "allow:never ask" }, { "git push", "deny:no-push" }, { "git $X", "deny:no-push" }, { "$X push", "deny:no-push" }, { "xargs git", "deny:no-push" },
		{ "echo $(git push)", "deny:no-push" }, { "if a; then b; fi", "allow:never ask" }, { "cat <<E\nx\nE", "allow:never ask" }, { "git log $X", "allow:git" }, { "/usr/bin/gi? push", "deny:no-push" }, { "ma?e push", "allow:never ask" }, { "'unclosed", "allow:never ask" },
	};
	(void)state;
	check_commands("{" RULES "}", cases, sizeof(cases) / sizeof(cases[0]));
}

static struct js *patch_of(const char *files)
{
	struct js *o = js_object();
	struct js *list = js_array();
	for (const char *at = files; *at; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");
		struct js *file = js_object();
		js_set(file, "path", js_string_n(at, n));
		js_push(list, file);
		at += n;
	}
	js_set(o, "files", list);
	return o;
}

static void a_patch_is_allowed_when_every_file_fits(void **state)
{
	static const struct split_case cases[] = {
		{ "README.md", "allow:docs" }, { "docs/a.md x/y/b.md", "allow:docs" }, { "README.md src/a.h", "ask" }, { "/workspace/README.md", "allow:docs" }, { "/workspace/../etc/a.md", "ask" }, { "../a.md", "ask" },
		{ "/etc/a.md", "ask" }, { "x/../../etc/a.md", "ask" }, { "x/../a.md", "allow:docs" }, { "./a.md", "allow:docs" }, { "x//a.md", "allow:docs" }, { "/workspace2/a.md", "ask" }, { "/../workspace/a.md", "ask" },
		{ ".git/a.md", "ask" }, { "x/.GIT/hooks/a.md", "ask" }, { ".github/a.md", "allow:docs" }, { "src/a.c", "allow:src" }, { "src/x/a.c", "ask" }, { "src/a.c a.md", "allow:src" }, { ".env", "deny:secrets" },
		{ "a.md x/.env", "deny:secrets" }, { "/etc/x.env", "deny:secrets" }, { "../.env", "deny:secrets" }, { "a.md .env ../x", "deny:secrets" }, { "", "ask" }, { "/workspace", "ask" }, { "/workspace/abs/x.txt", "allow:abs" },
		{ "abs/x.txt", "allow:abs" }, { "etc/passwd", "ask" }, { "/etc/passwd", "deny:etc" }, { "/etc/../etc/./passwd", "deny:etc" },
	};
	struct policy *p = policy_of("{\"ask\":\"always\",\"rules\":[{\"name\":\"secrets\",\"deny\":{\"path\":\"**.env\"}},{\"name\":\"etc\",\"deny\":{\"path\":\"/etc/pass*\"}},{\"name\":\"docs\",\"allow\":{\"path\":\"**.md\"}},"
				     "{\"name\":\"src\",\"allow\":{\"path\":\"./src/*.c\"}},{\"name\":\"abs\",\"allow\":{\"path\":\"/workspace/abs/**\"}},{\"name\":\"words\",\"allow\":{\"command\":\"**\"}}]}");
	size_t wrong = 0;
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		AUTO_JS struct js *data = patch_of(cases[i].line);
		AUTO_FREE char *got = verdict_text(p, "patch", data);
		if (str_eq(got, cases[i].expected))
			continue;
		print_error("%s: %s, not %s\n", cases[i].line, got, cases[i].expected);
		wrong++;
	}
	policy_free(p);
	assert_int_equal(wrong, 0);
}

static void expect(struct policy *p, const char *kind, const char *json, const char *expected)
{
	AUTO_JS struct js *data = parse(json);
	AUTO_FREE char *got = verdict_text(p, kind, data);
	assert_string_equal(got, expected);
}

static void a_patch_that_moves_or_wants_more_is_looked_at_whole(void **state)
{
	struct policy *p = policy_of("{\"ask\":\"always\",\"rules\":[{\"name\":\"docs\",\"allow\":{\"path\":\"**.md\"}}]}");
	(void)state;
	expect(p, "patch", "{\"files\":[{\"path\":\"a.md\",\"kind\":\"update\",\"move_path\":\"b.md\"}]}", "allow:docs");
	expect(p, "patch", "{\"files\":[{\"path\":\"a.md\",\"kind\":\"update\",\"move_path\":\"b.c\"}]}", "ask");
	expect(p, "patch", "{\"files\":[{\"path\":\"a.md\"}],\"root\":\"/etc\"}", "ask");
	expect(p, "patch", "{\"files\":[{\"path\":7},{\"path\":\"a.md\",\"move_path\":\"b.md\"}]}", "ask");
	expect(p, "patch", "{\"files\":{}}", "ask");
	expect(p, "patch", "{}", "ask");
	expect(p, "command", "{\"command\":7}", "ask");
	expect(p, "command", "{}", "ask");
	policy_free(p);
}

static void a_command_outside_the_workspace_is_not_the_one_that_was_allowed(void **state)
{
	struct policy *p = policy_of("{\"ask\":\"always\",\"rules\":[{\"name\":\"no\",\"deny\":{\"command\":\"rm **\"}},{\"name\":\"all\",\"allow\":{\"command\":\"**\"}}]}");
	(void)state;
	expect(p, "command", "{\"command\":\"make\",\"cwd\":\"/workspace\"}", "allow:all");
	expect(p, "command", "{\"command\":\"make\",\"cwd\":\"/workspace/a/../b/\"}", "allow:all");
	expect(p, "command", "{\"command\":\"make\",\"cwd\":\"sub\"}", "allow:all");
	expect(p, "command", "{\"command\":\"make\",\"cwd\":\"/tmp\"}", "ask");
	expect(p, "command", "{\"command\":\"make\",\"cwd\":\"/workspace/..\"}", "ask");
	expect(p, "command", "{\"command\":\"rm x\",\"cwd\":\"/tmp\"}", "deny:no");
	policy_free(p);
}

static void a_command_that_is_not_all_that_is_asked_is_never_allowed(void **state)
{
	static const char *const parts[] = { "{\"command\":\"make\",\"truncated\":7}", "{\"command\":\"make\",\"stdin\":true}", "{\"command\":\"make\",\"host\":\"example.org\"}" };
	struct policy *p = policy_of("{\"ask\":\"always\",\"rules\":[{\"name\":\"all\",\"allow\":{\"command\":\"**\"}}]}");
	struct policy *deny = policy_of("{\"ask\":\"always\",\"rules\":[{\"name\":\"no\",\"deny\":{\"command\":\"make\"}}]}");
	(void)state;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		AUTO_JS struct js *data = parse(parts[i]);
		policy_remember(p, "command", data);
		expect(p, "command", parts[i], "ask");
		expect(deny, "command", parts[i], "deny:no");
	}
	policy_free(p);
	policy_free(deny);
}

static void what_was_approved_for_the_session_is_not_asked_again(void **state)
{
	struct policy *p = policy_of("{\"ask\":\"always\",\"rules\":[{\"name\":\"no\",\"deny\":{\"command\":\"rm **\"}}]}");
	AUTO_JS struct js *command = parse("{\"command\":\"a > b\",\"cwd\":\"/workspace\",\"reason\":\"x\"}");
	AUTO_JS struct js *patch = parse("{\"files\":[{\"path\":\"a\",\"kind\":\"update\"},{\"path\":\"b\"}],\"diff\":\"x\"}");
	AUTO_JS struct js *more = parse("{\"permissions\":{\"net\":true}}");
	AUTO_JS struct js *rm = parse("{\"command\":\"rm x\"}");
	AUTO_JS struct js *question = parse("{\"questions\":[]}");
	(void)state;
	policy_remember(p, "command", command);
	policy_remember(p, "command", rm);
	policy_remember(p, "patch", patch);
	policy_remember(p, "permission", more);
	policy_remember(p, "question", question);
	expect(p, "command", "{\"command\":\"a > b\",\"cwd\":\"/workspace\"}", "allow:session");
	expect(p, "command", "{\"command\":\"a > b\",\"cwd\":\"/workspace/x\"}", "ask");
	expect(p, "command", "{\"command\":\"a > c\",\"cwd\":\"/workspace\"}", "ask");
	expect(p, "command", "{\"command\":\"rm x\"}", "deny:no");
	expect(p, "patch", "{\"files\":[{\"path\":\"b\"}],\"diff\":\"y\"}", "allow:session");
	expect(p, "patch", "{\"files\":[{\"path\":\"b\"},{\"path\":\"c\"}]}", "ask");
	expect(p, "patch", "{\"files\":[{\"path\":\"b\"}],\"root\":\"/etc\"}", "ask");
	expect(p, "permission", "{\"permissions\":{\"net\":true}}", "allow:session");
	expect(p, "permission", "{\"permissions\":{\"net\":true,\"fs\":1}}", "ask");
	expect(p, "question", "{\"questions\":[]}", "ask");
	policy_free(p);
}

static void the_session_remembers_only_so_much(void **state)
{
	struct policy *p = policy_of("{\"ask\":\"always\"}");
	(void)state;
	for (int i = 0; i < POLICY_SESSION_MAX + 1; i++) {
		AUTO_FREE char *command = mem_printf("a %d > b", i);
		AUTO_JS struct js *data = command_data(command);
		policy_remember(p, "command", data);
		policy_remember(p, "command", data);
		AUTO_FREE char *got = verdict_text(p, "command", data);
		assert_string_equal(got, i < POLICY_SESSION_MAX ? "allow:session" : "ask");
	}
	policy_free(p);
}

static void without_a_policy_nothing_is_asked_but_questions(void **state)
{
	static const char *const nothing[] = { NULL, "{}", "null", "{\"ask\":\"never\",\"rules\":[]}" };
	(void)state;
	for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++) {
		struct policy *p = policy_of(nothing[i]);
		expect(p, "command", "{\"command\":\"rm -rf /\"}", "allow:never ask");
		expect(p, "patch", "{\"files\":[{\"path\":\"/etc/passwd\"}]}", "allow:never ask");
		expect(p, "permission", "{\"permissions\":{}}", "allow:never ask");
		expect(p, "question", "{\"questions\":[]}", "ask");
		expect(p, "elicitation", "{}", "ask");
		expect(p, "other", "{}", "ask");
		assert_string_equal(policy_agent_mode(p), "never");
		assert_string_equal(policy_at_deadline(p), "reject");
		assert_int_equal(policy_deadline_ms(p), 0);
		assert_null(policy_default_answer(p));
		policy_free(p);
	}
}

static void the_agent_is_told_to_ask_what_rules_must_see(void **state)
{
	static const char *const cases[][2] = { { "{\"ask\":\"always\"}", "always" }, { "{\"ask\":\"on-request\"}", "on-request" }, { "{\"ask\":\"never\"}", "never" }, { "{" RULES "}", "always" },
		{ "{\"ask\":\"on-request\"," RULES "}", "on-request" } };
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct policy *p = policy_of(cases[i][0]);
		assert_string_equal(policy_agent_mode(p), cases[i][1]);
		policy_free(p);
	}
}

static void deadlines_and_their_outcome_are_read(void **state)
{
	struct policy *p = policy_of("{\"ask\":\"always\",\"deadline\":\"24h\",\"at_deadline\":\"default\",\"answer\":\"go on\"}");
	(void)state;
	assert_int_equal(policy_deadline_ms(p), 86400000);
	assert_string_equal(policy_at_deadline(p), "default");
	assert_string_equal(policy_default_answer(p), "go on");
	policy_free(p);
	p = policy_of("{\"deadline\":90,\"at_deadline\":\"fail\",\"answer\":null}");
	assert_int_equal(policy_deadline_ms(p), 90000);
	assert_string_equal(policy_at_deadline(p), "fail");
	policy_free(p);
}

static void a_policy_that_does_not_fit_is_refused_with_its_member(void **state)
{
	static const char *const bad[][2] = {
		{ "[]", "approvals:" }, { "\"never\"", "approvals:" }, { "{\"x\":1}", "approvals.x" }, { "{\"ask\":\"sometimes\"}", "approvals.ask" }, { "{\"ask\":1}", "approvals.ask" }, { "{\"at_deadline\":\"later\"}", "approvals.at_deadline" },
		{ "{\"deadline\":\"soon\"}", "approvals.deadline" }, { "{\"deadline\":0}", "approvals.deadline" }, { "{\"deadline\":-5}", "approvals.deadline" }, { "{\"deadline\":true}", "approvals.deadline" }, { "{\"deadline\":\"900d\"}", "approvals.deadline" },
		{ "{\"answer\":\"x\"}", "approvals.answer" }, { "{\"at_deadline\":\"default\",\"answer\":1}", "approvals.answer" }, { "{\"rules\":{}}", "approvals.rules" }, { "{\"rules\":[1]}", "approvals.rules[0]" },
		{ "{\"rules\":[{}]}", "approvals.rules[0]" }, { "{\"rules\":[{\"allow\":{\"command\":\"a\"},\"deny\":{\"command\":\"a\"}}]}", "approvals.rules[0]" }, { "{\"rules\":[{\"allow\":\"make\"}]}", "approvals.rules[0].allow" },
		{ "{\"rules\":[{\"allow\":{}}]}", "approvals.rules[0].allow" }, { "{\"rules\":[{\"allow\":{\"command\":\"a\",\"path\":\"b\"}}]}", "approvals.rules[0].allow" }, { "{\"rules\":[{\"allow\":{\"comand\":\"a\"}}]}", "approvals.rules[0].allow.comand" },
		{ "{\"rules\":[{\"deny\":{\"command\":\" \"}}]}", "approvals.rules[0].deny.command" }, { "{\"rules\":[{\"deny\":{\"command\":\"a ** b\"}}]}", "approvals.rules[0].deny.command" }, { "{\"rules\":[{\"allow\":{\"command\":\"a && b\"}}]}", "approvals.rules[0].allow.command" },
		{ "{\"rules\":[{\"allow\":{\"command\":\"a 'b c'\"}}]}", "approvals.rules[0].allow.command" }, { "{\"rules\":[{\"allow\":{\"path\":\"\"}}]}", "approvals.rules[0].allow.path" }, { "{\"rules\":[{\"allow\":{\"path\":7}}]}", "approvals.rules[0].allow.path" },
		{ "{\"rules\":[{\"name\":\"\",\"allow\":{\"path\":\"a\"}}]}", "approvals.rules[0].name" }, { "{\"rules\":[{\"allow\":{\"path\":\"a\"}},{\"name\":1,\"allow\":{\"path\":\"a\"}}]}", "approvals.rules[1].name" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		AUTO_JS struct js *o = parse(bad[i][0]);
		struct error e = ERROR_INIT;
		struct policy *p = NULL;
		assert_int_equal(policy_new(o, &p, &e), ERR_INVALID);
		assert_null(p);
		if (!strstr(e.text, bad[i][1]))
			print_error("%s: %s\n", bad[i][0], e.text);
		assert_non_null(strstr(e.text, bad[i][1]));
	}
}

static void a_rule_without_a_name_has_its_number(void **state)
{
	struct policy *p = policy_of("{\"ask\":\"always\",\"rules\":[{\"allow\":{\"command\":\"a\"}},{\"allow\":{\"command\":\"b\"}}]}");
	(void)state;
	expect(p, "command", "{\"command\":\"b\"}", "allow:rule 2");
	policy_free(p);
}

static void too_many_rules_are_refused(void **state)
{
	AUTO_JS struct js *o = js_object();
	struct js *rules = js_array();
	struct error e = ERROR_INIT;
	struct policy *p = NULL;
	(void)state;
	for (int i = 0; i <= POLICY_RULES_MAX; i++)
		js_push(rules, parse("{\"allow\":{\"command\":\"a\"}}"));
	js_set(o, "rules", rules);
	assert_int_equal(policy_new(o, &p, &e), ERR_INVALID);
	assert_non_null(strstr(e.text, "approvals.rules"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_certain_is_split_as_bash_does), cmocka_unit_test(what_is_not_certain_says_so_and_shows_what_can_be_seen), cmocka_unit_test(a_line_over_a_limit_is_not_certain),
		cmocka_unit_test(patterns_fit_names_and_paths), cmocka_unit_test(rules_decide_commands_in_their_order), cmocka_unit_test(who_is_never_asked_gets_what_no_rule_may_refuse),
		cmocka_unit_test(a_patch_is_allowed_when_every_file_fits), cmocka_unit_test(a_patch_that_moves_or_wants_more_is_looked_at_whole),
		cmocka_unit_test(a_command_outside_the_workspace_is_not_the_one_that_was_allowed), cmocka_unit_test(a_command_that_is_not_all_that_is_asked_is_never_allowed),
		cmocka_unit_test(what_was_approved_for_the_session_is_not_asked_again),
		cmocka_unit_test(the_session_remembers_only_so_much), cmocka_unit_test(without_a_policy_nothing_is_asked_but_questions), cmocka_unit_test(the_agent_is_told_to_ask_what_rules_must_see),
		cmocka_unit_test(deadlines_and_their_outcome_are_read), cmocka_unit_test(a_policy_that_does_not_fit_is_refused_with_its_member), cmocka_unit_test(a_rule_without_a_name_has_its_number),
		cmocka_unit_test(too_many_rules_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
