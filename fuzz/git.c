/* What git says of a repository that is not ours: the list of its refs; and an index file. The first byte chooses. */
#include "fuzz.h"
#include "base/file.h"
#include "source/index_file.h"
#include "source/ref_list.h"

static void refs(const char *text, size_t n)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct ref_list l = { .n = 0 };
	strbuf_add(&l.text, text, n);
	ref_list_parse(&l);
	ref_list_print(&l, &out);
	ref_list_find(&l, "refs/heads/main");
	ref_list_suggest(&l, "man", &out);
	ref_list_release(&l);
}

static void index_walk(const char *data, size_t n)
{
	struct index_file x = { .at = 12 };
	struct index_entry entry;
	strbuf_add(&x.data, data, n);
	if (n >= 32) { /* index_load's own least */
		index_rewind(&x);
		while (index_next(&x, &entry))
			CHECK(strlen(entry.name) == entry.name_len);
		(void)!index_check_end(&x, "p", NULL);
	}
	index_release(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	if (data[0] & 1)
		index_walk((const char *)data + 1, n - 1);
	else
		refs((const char *)data + 1, n - 1);
	return 0;
}
