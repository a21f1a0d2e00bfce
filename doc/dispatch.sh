# Functions for shells and for agents that use one: dispatch tasks to Signalbox, look at them, wait for them.
# Source it:  . dispatch.sh      (POSIX sh; bash, zsh and ksh also get the names with a hyphen). What they mean: dispatch.md.

# Start_CodexTask NAME PROMPT [OPTION...]: submits and returns at once; prints the task's id. OPTIONs are those of `signalbox start`.
Start_CodexTask() {
	if [ $# -lt 2 ]; then
		echo "usage: Start_CodexTask NAME PROMPT [OPTION...]" >&2
		return 2
	fi
	_sb_name=$1 _sb_prompt=$2
	shift 2
	_sb_out=$(signalbox start --quiet --name "$_sb_name" "$@" -- "$_sb_prompt") || return
	printf '%s\n' "${_sb_out%%[[:space:]]*}"
}

# Wait_TaskCompletion SECONDS TASK...: until every task has ended or needs a human. Status: 0 all DONE; else the first unhappy one's
# (1 ERROR, 3 CANCELED, 9 a human is needed, 124 TIMEOUT, 125 heartbeat lost); 8: the time is up and they go on.
Wait_TaskCompletion() {
	if [ $# -lt 2 ]; then
		echo "usage: Wait_TaskCompletion SECONDS TASK..." >&2
		return 2
	fi
	_sb_seconds=$1
	shift
	signalbox wait --timeout "${_sb_seconds}s" "$@"
}

# Wait_AnyTask SECONDS TASK...: the same for the first that is settled, which it prints.
Wait_AnyTask() {
	_sb_seconds=$1
	shift
	signalbox wait --any --timeout "${_sb_seconds}s" "$@"
}

# Get_TaskStatus TASK: PENDING, QUEUED, RUNNING, WAITING, DONE, ERROR, TIMEOUT or CANCELED.
Get_TaskStatus() {
	signalbox show --json "$1" | tr -d '\n' | sed -n 's/^{\(.*\)$/\1/; s/^.*"session_id": *"[^"]*", *"status": *"\([A-Z]*\)".*$/\1/p'
}

# Wait_TaskFile FILE SECONDS: without Signalbox's help, from a heartbeat file alone (.codex/tasks/NAME.json). A file that says RUNNING or
# PENDING and whose beat is older than a minute belongs to somebody dead.
Wait_TaskFile() {
	_sb_end=$(($(date +%s) + $2))
	while :; do
		_sb_text=
		[ ! -r "$1" ] || _sb_text=$(tr -d '\n' < "$1")
		_sb_status=$(printf '%s' "$_sb_text" | sed -n 's/^.*"status": *"\([A-Z]*\)".*$/\1/p')
		_sb_beat=$(printf '%s' "$_sb_text" | sed -n 's/^.*"lastHeartbeat": *"\([^"]*\)".*$/\1/p')
		case $_sb_status in
		DONE) return 0 ;;
		ERROR) return 1 ;;
		TIMEOUT) return 124 ;;
		esac
		[ -z "$_sb_beat" ] || _sb_beat=$(date -d "$_sb_beat" +%s 2>/dev/null)
		if [ -n "$_sb_beat" ] && [ $(($(date +%s) - _sb_beat)) -gt 60 ]; then
			return 125
		fi
		[ "$(date +%s)" -lt "$_sb_end" ] || return 8
		sleep 1
	done
}

# Names with a hyphen, where the shell takes them.
if [ -n "${BASH_VERSION:-}${ZSH_VERSION:-}${KSH_VERSION:-}" ]; then
	eval 'Start-CodexTask() { Start_CodexTask "$@"; }
	Wait-TaskCompletion() { Wait_TaskCompletion "$@"; }
	Wait-AnyTask() { Wait_AnyTask "$@"; }
	Get-TaskStatus() { Get_TaskStatus "$@"; }' 2>/dev/null || :
fi
