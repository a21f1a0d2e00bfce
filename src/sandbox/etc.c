/* Tables of what /etc holds inside: see etc.h.  In the texts, %h is the host name and %s the shell. */
#include "sandbox/etc.h"

#include "base/file.h"

#define SHELL_PREFERRED "/bin/bash"
#define SHELL_ALWAYS "/bin/sh"

const struct etc_file etc_files[] = {
	{ .path = "/etc/passwd", .text = "root:x:0:0:root:/root:/usr/sbin/nologin\n"
					 "agent:x:1000:1000:agent:/home/agent:%s\n"
					 "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n" },
	{ .path = "/etc/group", .text = "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n" },
	{ .path = "/etc/hostname", .text = "%h\n" },
	{ .path = "/etc/hosts", .text = "127.0.0.1\tlocalhost %h\n::1\tlocalhost\n", .offline_only = true },
	{ .path = "/etc/nsswitch.conf", .text = "passwd: files\ngroup: files\nhosts: files\n", .offline_only = true },
	{ .path = "/etc/hosts", .host_path = "/etc/hosts", .net_only = true },
	{ .path = "/etc/nsswitch.conf", .text = "passwd: files\ngroup: files\nhosts: files dns\n", .net_only = true },
	{ .path = "/etc/resolv.conf", .host_path = "/etc/resolv.conf", .net_only = true },
	{ .path = NULL },
};

const char *const etc_shared[] = { "/etc/alternatives", "/etc/ld.so.cache", NULL };
const char *const etc_shared_net[] = { "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted",
	"/etc/ca-certificates/extracted", NULL };

static void text_expand(const char *text, const char *hostname, struct strbuf *out)
{
	for (; *text; text++) {
		if (*text != '%')
			strbuf_addc(out, *text);
		else if (*++text == 'h')
			strbuf_adds(out, hostname);
		else
			strbuf_adds(out, file_is_executable(SHELL_PREFERRED) ? SHELL_PREFERRED : SHELL_ALWAYS);
	}
}

enum err_code etc_text(const struct etc_file *file, const char *hostname, struct strbuf *out, struct error *e)
{
	if (!file->text)
		return file_read(file->host_path, ETC_FILE_MAX, out, e);
	text_expand(file->text, hostname, out);
	return ERR_OK;
}
