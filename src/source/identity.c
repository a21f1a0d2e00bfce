/* Effective ids for a root process, kept in one place. */
#include "source/identity.h"
#include "base/check.h"
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

bool identity_is_root(void)
{
	return getuid() == 0;
}

/* The kernel forgets PDEATHSIG when ids change; a fetch whose runner died must still die. */
static bool set_effective(uid_t uid, gid_t gid)
{
	int death_signal = 0;
	bool ok;

	prctl(PR_GET_PDEATHSIG, &death_signal);
	ok = (geteuid() == 0 || seteuid(0) == 0) && setegid(gid) == 0 && (uid == 0 || seteuid(uid) == 0);
	if (death_signal != 0)
		prctl(PR_SET_PDEATHSIG, death_signal);
	return ok;
}

enum err_code identity_lower(uid_t uid, gid_t gid, struct error *e)
{
	if (!identity_is_root() || uid == 0)
		return ERR_OK;
	if (setgroups(0, NULL) < 0 || !set_effective(uid, gid))
		return error_errno(e, "become uid %u", (unsigned)uid);
	return ERR_OK;
}

enum err_code identity_enter(const struct identity *who, struct identity *ret_before, struct error *e)
{
	*ret_before = (struct identity){ .set = false };
	if (!who || !who->set || !identity_is_root() || (who->uid == geteuid() && who->gid == getegid()))
		return ERR_OK;
	*ret_before = (struct identity){ .set = true, .uid = geteuid(), .gid = getegid() };
	if (set_effective(who->uid, who->gid))
		return ERR_OK;
	error_errno(e, "become uid %u", (unsigned)who->uid);
	identity_return(ret_before);
	*ret_before = (struct identity){ .set = false };
	return e ? e->code : ERR_IO;
}

void identity_return(const struct identity *before)
{
	if (before->set)
		CHECK(set_effective(before->uid, before->gid));
}
