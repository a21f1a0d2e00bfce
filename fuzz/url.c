/* Where code comes from, in a user's words: URLs, refs, directories, and whole sources. */
#include "fuzz.h"
#include "base/str.h"
#include "source/address.h"
#include "source/source.h"
#include "source/url.h"

static void parse(const char *text)
{
	struct error e = ERROR_INIT;
	struct source_url u;

	if (source_url_parse(text, &u, &e) != ERR_OK) {
		CHECK(e.code && e.text[0]);
		return;
	}
	CHECK(text[0] != '-' && u.path && u.path[0] && (u.kind == URL_FILE || (u.host && u.host[0] && u.host[0] != '-')));
	CHECK(!u.user || u.user[0] != '-');
	free(source_url_key(&u));
	source_url_release(&u);
}

/* An address that is one reads back as itself, and no resolver takes it for another. */
static void look_at_address(const char *text)
{
	AUTO_STRBUF struct strbuf again = STRBUF_INIT;
	struct address a, b;
	struct network n;
	address_looks_numeric(text);
	if (address_parse(text, &a)) {
		address_add(&again, &a);
		CHECK(address_parse(strbuf_str(&again), &b) && memcmp(&a, &b, sizeof(a)) == 0 && address_kind_name(address_kind(&a)));
	}
	if (network_parse(text, &n, NULL) == ERR_OK)
		CHECK(network_has(&n, &n.base) && n.bits >= 0 && n.bits <= 128);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	size_t len;
	AUTO_FREE char *text = fuzz_part(&data, &n, '\n', &len);
	AUTO_FREE char *ref = fuzz_part(&data, &n, '\n', &len);
	AUTO_FREE char *key = NULL;
	AUTO_JS struct js *source = n ? js_parse((const char *)data, n, NULL) : js_object();

	parse(text);
	look_at_address(text);
	if (source_ref_check(ref, NULL) == ERR_OK)
		CHECK(ref[0] != '-' && !strstr(ref, ".."));
	if (source_path_check(text, NULL) == ERR_OK)
		CHECK(text[0] == '/');
	if (!source)
		return 0;
	if (n == 0) {
		js_set_str(source, "kind", "git");
		js_set_str(source, "url", text);
		js_set_str(source, "ref", ref);
	}
	bool local = str_eq(js_str(source, "kind"), "local"); /* that looks at the disk */
	if (!local && source_check(source, NULL) == ERR_OK)
		(void)!source_repo_key(source, &key, NULL);
	return 0;
}
