/* Plays kept inputs through a fuzz target, without libFuzzer: every file of the directories (or the files) given.  One test per target. */
#include "fuzz.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#define INPUT_MAX ((long)16 << 20)

static bool play(const char *path)
{
	FILE *f = fopen(path, "rb");
	long size = -1;
	if (f && fseek(f, 0, SEEK_END) == 0)
		size = ftell(f);
	if (size < 0 || size > INPUT_MAX || fseek(f, 0, SEEK_SET)) {
		fprintf(stderr, "replay: cannot read '%s'\n", path);
		if (f)
			fclose(f);
		return false;
	}
	uint8_t *data = malloc(size ? (size_t)size : 1); /* exactly as long as it is: what reads on is seen by the sanitizers */
	CHECK(data && fread(data, 1, (size_t)size, f) == (size_t)size);
	fclose(f);
	fprintf(stderr, "%s\n", path); /* before: who looks at a crash sees whose it was */
	LLVMFuzzerTestOneInput(data, (size_t)size);
	free(data);
	return true;
}

static bool play_all(const char *dir, int *ret_played)
{
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, alphasort);
	bool ok = n >= 0;
	for (int i = 0; i < n; i++) {
		AUTO_FREE char *path = mem_printf("%s/%s", dir, names[i]->d_name);
		if (names[i]->d_name[0] != '.') {
			ok = play(path) && ok;
			++*ret_played;
		}
		free(names[i]);
	}
	free(names);
	return ok;
}

int main(int argc, char **argv)
{
	int played = 0;
	bool ok = true;
	for (int i = 1; i < argc; i++) {
		struct stat st;
		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
			ok = play_all(argv[i], &played) && ok;
		} else {
			ok = play(argv[i]) && ok;
			played++;
		}
	}
	printf("%d inputs played\n", played);
	return ok && played ? 0 : 1;
}
