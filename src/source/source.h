/* Where code comes from: git URLs through a mirror cache, local directories as snapshots, cached checkouts.
 *
 * All of it runs in `signalbox fetch`, a short-lived process: it reads one job (JSON) from stdin, writes JSON lines to stdout
 * ({"progress":{"step":"clone|fetch|snapshot|checkout","percent":N,"text":"..."}} and last {"result":{...}} or
 * {"error":{"code","text","hint"}}), and uses git with hooks, filters, fsmonitor, external protocols, submodules and the user's
 * configuration switched off.  Exit status 0 with a result, 1 with an error line.
 *
 * job kinds
 *   {"kind":"git","url","ref"|null,"cache":DIR,"uid","gid",...}  mirror, resolve, checkout
 *   {"kind":"prove","url","ref"|null,"cache":DIR,"uid","gid",...} one listing: may we read it, and which commit is the ref?
 *   {"kind":"archive","fd":N,"limits":{"files","bytes","file_bytes","ratio","keep_top"},"cache":DIR,"uid","gid"}   the archive open as N -> commit in a store of ours
 *   {"kind":"snapshot","dir","cache":DIR,"uid","gid"}            local directory -> commit in a store of ours (no checkout)
 *   {"kind":"checkout","store":GITDIR,"commit","head","branch","cache":DIR,"uid","gid"}
 * uid/gid: who owns the cache (the sandbox's identity). When this process is root it reads local directories and file URLs as their owner,
 * does everything else as uid, and leaves the cache owned by uid/gid.
 *
 * Further members of the first two: "rules" (policy.h), "credential" (a fingerprint: its mirror is not another one's), "secret" (true: the
 * credential itself is at descriptor CREDENTIAL_FD; wiped as soon as the code is here). Of git: "depth" (0: all history), "submodules", "lfs" (over https),
 * and what a proof found: "proven", "commit", "branch"; then nobody is asked again when the commit is cached.
 *
 * result (prove): {"proven":true,"commit"|null,"branch"|null}; null: what the ref is can only be told by fetching.
 * result (git and checkout)
 *   {"store":GITDIR,"commit","tree","head","branch"|null,"checkout":TREEDIR,"files":N,"bytes":N,"warnings":[...],"reused":BOOL}
 * result (snapshot): {"store","commit","tree","head"|null,"branch"|null,"dir","prefix","warnings":[...]}: head is the user's HEAD commit, commit
 * is the snapshot (== head when nothing was changed); dir is the top of the repository (of the directory, without git) and prefix where the
 * directory asked for lies in it ("sub/" or ""). The same state always gives the same commit id.
 *
 * cache layout:  CACHE/git/<sha256 of url, credential and depth>/{repo.git,lock,url}   CACHE/local/<sha256 of realpath>/{repo.git,lock,dir}   CACHE/trees/<commit>-<store>-<view>/ (complete ones only; made as
 * trees/.tmp-*; trees/.lock-* is its lock, whose time is its last use; store and view are hashes of the store's path and of head and branch)
 * repo.git is bare; TREEDIR has the files and a small .git whose objects/info/alternates is SANDBOX_OBJECTS; TREEDIR is never written after it is complete. */
#pragma once
#include "base/err.h"
#include "base/js.h"

#define SOURCE_DEPTH_MAX 1000000 /* commits */

int source_fetch_main(void); /* `signalbox fetch` */
/* The result that a fetch would give, when everything is cached and nobody has to be asked: a git source with a commit that was proven at
 * submit (of a file URL: with a full commit id as its ref), or a snapshot. No process is started, no git is run. */
bool source_peek(const struct js *source, const char *cache, struct js **ret_result);

/* The key by which tasks of one repository are counted together: normalised URL without credentials, or the real path. */
MUST_USE enum err_code source_repo_key(const struct js *source, char **ret, struct error *e);
/* Whether a proof is wanted before the cache may serve it: a git source on another host. */
bool source_needs_proof(const struct js *source);
/* A directory's named ref is a repository like any other, but one that was named as a directory: the rules about URLs are not for it. */
void source_make_repository(struct js *source);
/* The server's rules about URLs (policy.h), as far as they need nobody else. */
MUST_USE enum err_code source_check_rules(const struct js *source, const struct js *rules, struct error *e);
/* Whether it names a directory or file of this machine: a local source, or a URL of that kind in any spelling. */
bool source_is_local(const struct js *source);
/* The directory of the mirror that a git source has or would have below `cache`; NULL for others. The caller frees. */
char *source_mirror_path(const struct js *source, const char *cache);
/* Checks {"kind":"git","url","ref"} | {"kind":"archive","upload","keep_top"} | {"kind":"local","dir"} | {"kind":"none"} at the door: scheme, host, ref name, control characters, UTF-8, credentials in the URL. */
MUST_USE enum err_code source_check(const struct js *source, struct error *e);
