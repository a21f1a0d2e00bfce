/* The index file's entries, in place. */
#include "source/index_file.h"
#include "base/file.h"
#include <string.h>

#define HEADER_SIZE 12
#define TRAILER_SIZE 20
#define ID_AT 40
#define FLAGS_AT 60
#define NAME_AT 62
#define FLAG_EXTENDED 0x40u /* in the first of the two bytes */

uint32_t index_get_u32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void index_put_u32(unsigned char *p, uint32_t v)
{
	p[0] = (unsigned char)(v >> 24);
	p[1] = (unsigned char)(v >> 16);
	p[2] = (unsigned char)(v >> 8);
	p[3] = (unsigned char)v;
}

static unsigned char *bytes(const struct index_file *x)
{
	return (unsigned char *)x->data.data;
}

void index_rewind(struct index_file *x)
{
	x->at = HEADER_SIZE;
	x->left = index_get_u32(bytes(x) + 8);
}

enum err_code index_load(const char *path, struct index_file *ret, struct error *e)
{
	struct index_file x = { .data = STRBUF_LIMIT(INDEX_FILE_MAX) };
	enum err_code code = file_read(path, INDEX_FILE_MAX, &x.data, e);
	uint32_t version;

	if (code == ERR_OK && (x.data.len < HEADER_SIZE + TRAILER_SIZE || memcmp(x.data.data, "DIRC", 4) != 0))
		code = error_set(e, ERR_INTERNAL, "'%s' is not a git index", path);
	if (code == ERR_OK) {
		version = index_get_u32(bytes(&x) + 4);
		if (version != 2 && version != 3)
			code = error_set(e, ERR_UNSUPPORTED, "'%s' is a git index of version %u", path, version);
	}
	if (code != ERR_OK) {
		strbuf_release(&x.data);
		return code;
	}
	index_rewind(&x);
	*ret = x;
	return ERR_OK;
}

void index_release(struct index_file *x)
{
	strbuf_release(&x->data);
}

bool index_next(struct index_file *x, struct index_entry *ret)
{
	size_t end = x->data.len - TRAILER_SIZE, name_at, len;
	unsigned char *p = bytes(x) + x->at;
	const void *nul;

	if (x->left == 0 || x->at + NAME_AT >= end)
		return false;
	name_at = x->at + NAME_AT + ((p[FLAGS_AT] & FLAG_EXTENDED) ? 2 : 0);
	nul = name_at < end ? memchr(bytes(x) + name_at, '\0', end - name_at) : NULL;
	if (!nul)
		return false;
	len = (size_t)((const unsigned char *)nul - (bytes(x) + name_at));
	*ret = (struct index_entry){
		.name = x->data.data + name_at,
		.name_len = len,
		.mode = index_get_u32(p + 24),
		.size = index_get_u32(p + 36),
		.id = p + ID_AT,
		.stat = p,
	};
	x->at += (name_at - x->at + len + 8) & ~(size_t)7;
	x->left--;
	return true;
}

enum err_code index_check_end(const struct index_file *x, const char *path, struct error *e)
{
	return x->left == 0 ? ERR_OK : error_set(e, ERR_INTERNAL, "the git index '%s' is damaged", path);
}
