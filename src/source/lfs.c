/* git-lfs has to be there for those who ask for its files. */
#include "source/lfs.h"

enum err_code lfs_check(struct error *e)
{
	error_set(e, ERR_UNSUPPORTED, "git-lfs is not used by this build: its files would be left as pointers");
	error_hint(e, "submit it without lfs; the pointers are then in the files' places");
	return ERR_UNSUPPORTED;
}
