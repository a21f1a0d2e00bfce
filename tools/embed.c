/* A file as a C array, for the build: embed FILE NAME > NAME.c  gives  const char NAME[] and const size_t NAME_len. */
#include <stdio.h>

int main(int argc, char **argv)
{
	FILE *f = argc == 3 ? fopen(argv[1], "rb") : NULL;
	unsigned long n = 0;
	if (!f) {
		fprintf(stderr, "usage: embed FILE NAME\n");
		return 2;
	}
	printf("#include <stddef.h>\nextern const char %s[];\nextern const size_t %s_len;\nconst char %s[] = {", argv[2], argv[2], argv[2]);
	for (int c; (c = getc(f)) != EOF; n++)
		printf("%s%d,", n % 24 ? "" : "\n", c > 127 ? c - 256 : c);
	printf("\n0 };\nconst size_t %s_len = %lu;\n", argv[2], n);
	return ferror(f) || fclose(f) || fflush(stdout) ? 1 : 0;
}
