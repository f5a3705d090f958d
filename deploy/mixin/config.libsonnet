// What a site may change. The values here are those of deploy/prometheus/rotatord.rules.yaml.
// A duration is written as Prometheus writes it: 90s, 10m, 1h30m. Texts that name it follow.
{
  _config+:: {
    // Label matchers for every metric of the daemon, such as 'job="rotatord",cluster="a"'. Empty: none.
    selector: '',
    // Where your copy of docs/runbook.md is. Each alert adds its section, such as #rotatordabsent.
    runbookURL: 'https://example.com/rotatord/docs/runbook.md',
    // Labels for every alert, such as { team: 'platform' }.
    labels: {},
    // Changes to single alerts: { RotatordTokenUnused: { enabled: false }, RotatordAbsent: { 'for': '5m', severity: 'warning' } }.
    alerts: {},
    // For how long the expression of an alert must hold that sets nothing itself. Empty: one evaluation.
    defaultFor: '',

    // Thresholds.
    clockSkew: '30s',  // a clock further off than this is worth a warning; beyond 15 minutes no rotation starts
    clockStepped: '2m',  // a clock that was set by more than this
    expires: '14d',  // a service token that ends within this
    expiresVerySoon: '3d',  // the same, and critical; for versions that Vault deletes as well
    failedRatio: '0.5',  // requests that were not served, out of all, in failedRatioWindow
    failures: '3',  // attempts that failed one after the other
    graceEnding: '2h',  // the old secret ends within this, and the new one is not delivered
    heldUp: '6h',  // a token that is due within this, while a check fails that stops it
    inventoryStale: '26h',  // without an inventory; above the longest inventory_every, which is a day
    ledgerOld: '60s',  // a replica that has not read the shared ledger for this long
    overdue: '30m',  // a rotation that is due for this long and has not started
    reissueDelayed: '5m',  // a lost secret that was not made up for
    secretPending: '10m',  // a new secret that is not in every sink
    sessionEnding: '5m',  // a Vault session that ends within this
    throttled: '1m',  // waits that Cloudflare asked for in throttledWindow, together
    unused: '25d',  // Cloudflare may disable what is unused for 30 days
    watchPeriods: '4',  // a sink that was not looked at for this many times vault.watch_every

    // Windows: for how long what happened once is shown.
    clockSteppedWindow: '15m',
    failedRatioWindow: '15m',
    lateAnswerWindow: '1h',
    renewalWindow: '3h',  // a renewal that failed is tried again within the hour
    restoredWindow: '1h',
    sinkWritesWindow: '30m',
    slotsMissedWindow: '1h',
    takeoverWindow: '30m',
    throttledWindow: '1h',

    // How long what a daemon said last counts, while none says anything.
    restartBridge: '5m',  // bridges a restart
    pauseBridge: '15m',  // the same, for pauses
    replicaKnownFor: '1d',
    tokenKnownFor: '1d',
    troubleKeptFor: '7d',
  },
}
