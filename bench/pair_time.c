/* Times two commands side by side: A B A B ..., each from its spawn to its end.  Prints one JSON line.
 * usage: pair_time ROUNDS -- A... -- B...      (nothing of theirs is shown; a failure of either ends it) */
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 100000
#define WARM_UP 3

extern char **environ;

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Milliseconds, or -1. */
static double time_one(char **argv, posix_spawn_file_actions_t *quiet)
{
	pid_t pid;
	int status = 0;
	double from = now_ms();
	if (posix_spawnp(&pid, argv[0], quiet, NULL, argv, environ) || waitpid(pid, &status, 0) != pid || status != 0)
		return -1;
	return now_ms() - from;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print(const char *name, double *ms, size_t n)
{
	qsort(ms, n, sizeof(*ms), by_value);
	printf("\"%s\":{\"p10\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f}", name, ms[n / 10], ms[n / 2], ms[n - 1 - n / 10], ms[n - 1 - n / 100]);
}

static size_t find_mark(int argc, char **argv, size_t from)
{
	while (from < (size_t)argc && strcmp(argv[from], "--") != 0)
		from++;
	return from;
}

int main(int argc, char **argv)
{
	size_t a = find_mark(argc, argv, 0), b = find_mark(argc, argv, a + 1), rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	posix_spawn_file_actions_t quiet;
	if (rounds < 1 || rounds > ROUNDS_MAX || b + 1 >= (size_t)argc) {
		fprintf(stderr, "usage: pair_time ROUNDS -- A... -- B...\n");
		return 2;
	}
	argv[b] = NULL;
	char **commands[] = { argv + a + 1, argv + b + 1 };
	double *ms[] = { calloc(rounds, sizeof(double)), calloc(rounds, sizeof(double)) };
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	for (size_t i = 0; i < rounds + WARM_UP; i++)
		for (int k = 0; k < 2; k++) {
			double took = time_one(commands[k], &quiet);
			if (took < 0) {
				fprintf(stderr, "pair_time: %s failed\n", commands[k][0]);
				return 1;
			}
			if (i >= WARM_UP)
				ms[k][i - WARM_UP] = took;
		}
	printf("{\"rounds\":%zu,", rounds);
	print("a", ms[0], rounds);
	printf(",");
	print("b", ms[1], rounds);
	printf("}\n");
	return 0;
}
