# Functions for PowerShell: dispatch tasks to Signalbox, look at them, wait for them. Dot-source it:  . ./dispatch.ps1
# What they mean, and what the numbers are: dispatch.md.

# Submits and returns at once; gives the task (id, session_id, url, status, ...). -Options are those of `signalbox start`.
function Start-CodexTask {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory)] [string] $TaskId,
        [Parameter(Mandatory)] [string] $Prompt,
        [string] $Repo, [string] $Agent, [string] $Verify, [string] $Timeout,
        [string[]] $Options = @()
    )
    $words = @('start', '--json', '--name', $TaskId)
    if ($Repo) { $words += @('--repo', $Repo) }
    if ($Agent) { $words += @('--agent', $Agent) }
    if ($Verify) { $words += @('--verify', $Verify) }
    if ($Timeout) { $words += @('--timeout', $Timeout) }
    $text = & signalbox @words @Options -- $Prompt
    if ($LASTEXITCODE -ne 0) { throw "signalbox start $TaskId ended with status $LASTEXITCODE" }
    $text | Out-String | ConvertFrom-Json
}

# Until every task has ended or needs a human. Gives one object a task: id, name, status, reason, result, ...
# $LASTEXITCODE: 0 all DONE; 1 ERROR, 3 CANCELED, 8 the time is up, 9 a human is needed, 124 TIMEOUT, 125 heartbeat lost.
function Wait-TaskCompletion {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory)] [string[]] $TaskId,
        [int] $TimeoutSeconds = 3600,
        [switch] $Any
    )
    $words = @('wait', '--json', '--timeout', "${TimeoutSeconds}s")
    if ($Any) { $words += '--any' }
    & signalbox @words @TaskId | ForEach-Object { $_ | ConvertFrom-Json }
}

# The task as it is now.
function Get-TaskStatus {
    [CmdletBinding()]
    param([Parameter(Mandatory)] [string] $TaskId)
    $text = & signalbox show --json $TaskId
    if ($LASTEXITCODE -ne 0) { throw "signalbox show $TaskId ended with status $LASTEXITCODE" }
    $text | Out-String | ConvertFrom-Json
}

# An agent of your own reports: Send-TaskReport register T-1; Send-TaskReport progress T-1 "half way"; Send-TaskReport complete T-1
# Gives $false when somebody has asked the task to end.
function Send-TaskReport {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory)] [ValidateSet('register', 'heartbeat', 'progress', 'complete', 'error', 'canceled')] [string] $What,
        [Parameter(Mandatory)] [string] $TaskId,
        [string] $Text
    )
    $words = @('report', $What, $TaskId)
    if ($Text) { $words += $Text }
    & signalbox @words | Out-Null
    if ($LASTEXITCODE -eq 3) { return $false }
    if ($LASTEXITCODE -ne 0) { throw "signalbox report $What $TaskId ended with status $LASTEXITCODE" }
    $true
}
