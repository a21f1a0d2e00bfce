/* The agent of the bench: a static program that a bench repository carries, so that it is there in every sandbox.
 *
 *   agent stamp            prints CLOCK_MONOTONIC in ns, first thing in main()
 *   agent pace N EVERY_US  prints N lines, one every EVERY_US microseconds
 *   agent hold             opens a model stream through the sandbox's door and holds it until it ends
 *   agent sleep            waits for ever */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_MAX 2048
#define GATEWAY_PORT_DEFAULT 8787

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Each line at its own time from the beginning: a late one is not followed by a pause. */
static int pace(long n, long every_us)
{
	int64_t begun = now_ns();
	for (long i = 0; i < n; i++) {
		int64_t at = begun + (int64_t)i * every_us * 1000;
		struct timespec until = { .tv_sec = at / 1000000000, .tv_nsec = at % 1000000000 };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		char line[128];
		int len = snprintf(line, sizeof(line), "line %ld of a paced agent, about as long as such lines are\n", i);
		if (write(STDOUT_FILENO, line, (size_t)len) != len)
			return 1;
	}
	return 0;
}

static int door_port(void)
{
	const char *url = getenv("OPENAI_BASE_URL"), *colon = url ? strrchr(url, ':') : NULL;
	return colon ? atoi(colon + 1) : GATEWAY_PORT_DEFAULT;
}

static int hold(void)
{
	static const char body[] = "{\"model\":\"gpt-5.5\",\"stream\":true,\"input\":[{\"type\":\"message\",\"role\":\"user\",\"content\":"
		"[{\"type\":\"input_text\",\"text\":\"[scenario bench-hold] go\"}]}]}";
	const char *key = getenv("OPENAI_API_KEY");
	char text[REQUEST_MAX], reply[REQUEST_MAX];
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)door_port()), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return 1;
	int len = snprintf(text, sizeof(text), "POST /v1/responses HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n"
		"Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: %zu\r\n\r\n%s", key ? key : "", sizeof(body) - 1, body);
	if (len <= 0 || (size_t)len >= sizeof(text) || write(fd, text, (size_t)len) != len)
		return 1;
	for (ssize_t n; (n = read(fd, reply, sizeof(reply))) > 0;)
		if (write(STDOUT_FILENO, reply, (size_t)n) != n)
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	int64_t begun = now_ns();
	const char *verb = argc > 1 ? argv[1] : "stamp";
	if (strcmp(verb, "stamp") == 0)
		return printf("%lld\n", (long long)begun) > 0 ? 0 : 1;
	if (strcmp(verb, "pace") == 0 && argc == 4)
		return pace(atol(argv[2]), atol(argv[3]));
	if (strcmp(verb, "hold") == 0)
		return hold();
	if (strcmp(verb, "sleep") == 0)
		return pause();
	return 2;
}
