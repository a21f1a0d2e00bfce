/* Where code comes from: git URLs through a mirror cache, local directories as snapshots, cached checkouts.
 *
 * All of it runs in `signalbox fetch`, a short-lived process: it reads one job (JSON) from stdin, writes JSON lines to stdout
 * ({"progress":{"step":"clone|fetch|snapshot|checkout","percent":N,"text":"..."}} and last {"result":{...}} or
 * {"error":{"code","text","hint"}}), and uses git with hooks, filters, fsmonitor, external protocols, submodules and the user's
 * configuration switched off.  Exit status 0 with a result, 1 with an error line.
 *
 * job kinds
 *   {"kind":"git","url","ref"|null,"cache":DIR,"uid","gid"}      mirror, resolve, checkout
 *   {"kind":"snapshot","dir","cache":DIR,"uid","gid"}            local directory -> commit in a store of ours (no checkout)
 *   {"kind":"checkout","store":GITDIR,"commit","head","branch","cache":DIR,"uid","gid"}
 * uid/gid: who owns the cache (the sandbox's identity). When this process is root it reads local directories and file URLs as their owner,
 * does everything else as uid, and leaves the cache owned by uid/gid.
 *
 * result (git and checkout)
 *   {"store":GITDIR,"commit","tree","head","branch"|null,"checkout":TREEDIR,"files":N,"bytes":N,"warnings":[...],"reused":BOOL}
 * result (snapshot): {"store","commit","tree","head"|null,"branch"|null,"dir","prefix","warnings":[...]}: head is the user's HEAD commit, commit
 * is the snapshot (== head when nothing was changed); dir is the top of the repository (of the directory, without git) and prefix where the
 * directory asked for lies in it ("sub/" or ""). The same state always gives the same commit id.
 *
 * cache layout:  CACHE/git/<sha256 of url>/{repo.git,lock,url}   CACHE/local/<sha256 of realpath>/{repo.git,lock,dir}   CACHE/trees/<commit>-<store>-<view>/ (complete ones only; made as
 * trees/.tmp-*; trees/.lock-* is its lock, whose time is its last use; store and view are hashes of the store's path and of head and branch)
 * repo.git is bare; TREEDIR has the files and a small .git whose objects/info/alternates is SANDBOX_OBJECTS; TREEDIR is never written after it is complete. */
#pragma once
#include "base/err.h"
#include "base/js.h"

int source_fetch_main(void); /* `signalbox fetch` */
/* The result that a fetch would give, when everything is cached and nobody has to be asked: a git source with a full commit id as its
 * ref, or a snapshot. No process is started, no git is run. */
bool source_peek(const struct js *source, const char *cache, struct js **ret_result);

/* The key by which tasks of one repository are counted together: normalised URL without credentials, or the real path. */
MUST_USE enum err_code source_repo_key(const struct js *source, char **ret, struct error *e);
/* Checks {"kind":"git","url","ref"} | {"kind":"local","dir"} | {"kind":"none"} at the door: scheme, host, ref name, control characters, UTF-8, credentials in the URL. */
MUST_USE enum err_code source_check(const struct js *source, struct error *e);
