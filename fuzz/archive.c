/* Archives, as signalbox-unpack reads them, with its walls left out: whatever comes, what it lets through is a clean name of a kind that a
 * source may have, within the limits. */
int unpack_main(int argc, char **argv);
#define main unpack_main
#include "source/unpack.c"
#undef main
#include "source/unpack_gzip.c"
#include "source/unpack_zip.c"
#include "fuzz.h"
#include <fcntl.h>
#include <sys/mman.h>

static const char limits[] = "{\"files\":1000,\"bytes\":1048576,\"file_bytes\":524288,\"ratio\":100}";

static void give_input(const uint8_t *data, size_t n)
{
	AUTO_CLOSE int in = memfd_create("archive", MFD_CLOEXEC);
	static int out = -1;
	if (out < 0) {
		out = open("/dev/null", O_WRONLY | O_CLOEXEC);
		CHECK(out >= 0 && dup2(out, STDOUT_FILENO) >= 0);
	}
	CHECK(in >= 0 && file_write_all(in, (const char *)data, n, NULL) == ERR_OK && lseek(in, 0, SEEK_SET) == 0);
	CHECK(dup2(in, STDIN_FILENO) >= 0);
}

static void check_name(const char *path)
{
	CHECK(path[0] && path[0] != '/');
	for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL) {
		size_t n = strcspn(part, "/");
		CHECK(n > 0 && n <= UNPACK_PART_MAX && !(n == 1 && part[0] == '.') && !(n == 2 && part[0] == '.' && part[1] == '.'));
		CHECK(n != 4 || strncasecmp(part, ".git", 4) != 0);
	}
}

static void check_list(const struct unpack *u)
{
	CHECK(u->list.files <= (size_t)u->limits.files && u->list.bytes <= u->limits.bytes);
	for (size_t i = 0; i < u->list.n; i++)
		if (u->list.v[i].path[0]) /* "": what was taken off as the top */
			check_name(u->list.v[i].path);
}

static void let_go(struct unpack *u)
{
	if (u->archive)
		archive_read_free(u->archive);
	if (u->gunzip)
		inflateEnd(&u->gunzip->z); /* the program ends instead */
	free(u->gunzip);
	unpack_list_release(&u->list);
	free(u->first_left_out);
	free(u->last);
	strbuf_release(&u->out);
	free(u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct unpack *u = NEW(struct unpack);
	struct error e = ERROR_INIT;

	setlocale(LC_CTYPE, "C.UTF-8");
	give_input(data, n);
	CHECK(read_limits(u, limits, &e) == ERR_OK);
	if (work(u, &e) == ERR_OK) {
		AUTO_JS struct js *o = done(u);
		fuzz_is_json(o);
		check_list(u);
	} else {
		CHECK(e.code && e.text[0]);
	}
	let_go(u);
	return 0;
}
